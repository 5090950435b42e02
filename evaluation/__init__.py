"""Evaluation that an honest critic would accept: suites, runs that are paid for once, reports with all that was spent."""
