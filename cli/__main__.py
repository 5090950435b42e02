"""`python -m k2think.cli`: how the stack starts its own children."""

from .app import main

main()
