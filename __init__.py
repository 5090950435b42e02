"""k2think: plan, sample, verify, screen. The K2-Think reasoning system as software to run in production.

An independent implementation of arXiv 2509.07604; not by the paper's authors.
"""

__version__ = "0.1.0"
