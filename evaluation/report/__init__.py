"""The report of runs: one typed model (`model.py`), made by `build.py`, from which Markdown, HTML and JSON are written.

It shows what an honest critic would ask for: every count, every token, what a row is, how sure a figure is, and what is unknown.
"""
