"""Whom a run asks: a plain endpoint, or our own system; each returns what came back and everything that was paid for it."""
