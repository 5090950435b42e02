"""Measuring a backend: how fast it is over more and more streams, what we cost on top of a bare client, what it could reach."""
