"""Backends: one protocol, one module per kind, errors mapped at the border."""
