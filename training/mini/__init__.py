"""k2think-mini: the bundled model, its problem families, training, conversion and evaluation."""
