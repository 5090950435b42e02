"""Post-training: from the recipe for the full-size model down to the bundled k2think-mini."""
