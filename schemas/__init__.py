"""Ground types: messages, policy, settings, errors, trace. Pydantic only, no I/O, imports nothing of ours."""
