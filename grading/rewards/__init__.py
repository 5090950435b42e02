"""The reward of each domain. :mod:`..score` is the door; nothing here is called by name from outside `grading/`."""
