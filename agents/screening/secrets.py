"""Secrets that must not leave with an answer: private keys and access tokens of common services.

Every pattern begins with a literal and is bounded, so a search is linear.
"""

import re
from collections.abc import Sequence

DISTINCT_MIN = 8
"""Distinct characters of a real token's random part; placeholders such as `sk-xxxxxxxx…` have fewer."""

_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----[\s\\n]{0,10}[A-Za-z0-9+/=:,\-\s\\]{64}"
)
_TOKENS = re.compile(
    r"""AKIA(?P<aws>[0-9A-Z]{16})(?![0-9A-Z])
      | ASIA(?P<sts>[0-9A-Z]{16})(?![0-9A-Z])
      | gh[pousr]_(?P<github>[A-Za-z0-9]{36})
      | github_pat_(?P<pat>[A-Za-z0-9_]{60})
      | glpat-(?P<gitlab>[A-Za-z0-9_-]{20})
      | sk-(?P<openai>[A-Za-z0-9_-]{32})
      | csk-(?P<cerebras>[a-z0-9]{40})
      | hf_(?P<hf>[A-Za-z0-9]{30})
      | xox[abeprs]-(?P<slack>[A-Za-z0-9-]{20})
      | hooks\.slack\.com/services/(?P<hook>T[A-Z0-9]{8,12}/B[A-Z0-9]{8,12}/[A-Za-z0-9]{20})
      | AIza(?P<google>[0-9A-Za-z_-]{35})
      | sk_live_(?P<stripe>[0-9A-Za-z]{24})
      | npm_(?P<npm>[A-Za-z0-9]{36})""",
    re.VERBOSE,
)


def find_secret(text: str, *, known: Sequence[str] = ()) -> bool:
    """Tell whether `text` holds a secret that none of the `known` texts (the user's own words) holds."""
    if any(not _said(match.group(), known) for match in _PRIVATE_KEY.finditer(text)):
        return True
    for match in _TOKENS.finditer(text):
        random_part = next(group for group in match.groups() if group is not None)
        looks_real = (
            len(set(random_part)) >= DISTINCT_MIN
            and any(c.isdigit() for c in random_part)
            and "EXAMPLE" not in random_part
        )
        if looks_real and not _said(match.group(), known):
            return True
    return False


def _said(secret: str, known: Sequence[str]) -> bool:
    return any(secret in text for text in known)
