"""What the safety agent screens with: normalised text, decoded payloads, rules, secrets, guard models."""
