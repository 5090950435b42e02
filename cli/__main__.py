"""`python -m k2think.cli`: how the stack starts its own children."""

from .app import main

if __name__ == "__main__":  # an engine's processes, spawned by a worker, import this module again
    main()
