"""The tokens of k2think-mini: role tags, reasoning tags and printable ASCII, one token a character.

Text between tags is normalised first, by rules that three engines apply alike (Python ``re`` here, Rust ``tokenizers``
and OpenVINO in the exported tokenizer): lower case, one space for a run of white space, no spaces round signs, typographic
signs in ASCII, anything else one ``~``, closing punctuation dropped. So ``347 + 58 = ?`` and ``347+58`` are one prompt.
"""

from __future__ import annotations

import re

PAD, EOS = "<pad>", "<eos>"
SOLVE, PLAN, END_PLAN, JUDGE = "<solve>", "<plan>", "</plan>", "<judge>"
CANDIDATE_A, CANDIDATE_B = "<a>", "<b>"
THINK, END_THINK, ANSWER, END_ANSWER = "<think>", "</think>", "<answer>", "</answer>"
SPECIAL = (PAD, EOS)
"""Tokens that the detokenizer drops."""
TAGS = (SOLVE, PLAN, END_PLAN, JUDGE, CANDIDATE_A, CANDIDATE_B, THINK, END_THINK, ANSWER, END_ANSWER)
"""Tokens that stay visible in text."""
UNKNOWN = "~"
CHARACTERS = tuple(chr(code) for code in range(32, 127))
VOCABULARY = (*SPECIAL, *TAGS, *CHARACTERS)
TOKEN_IDS = {token: index for index, token in enumerate(VOCABULARY)}
PAD_ID, EOS_ID = TOKEN_IDS[PAD], TOKEN_IDS[EOS]

BEFORE_LOWER = (
    (r"[\[\]$]", " "),
    ("[\\t\\n\\x0b\\x0c\\r \u00a0\u202f]+", " "),
    ("[\u2212\u2013\u2014]", "-"),
    ("[\u00d7\u22c5\u00b7]", "*"),
    ("\u00f7", "/"),
    ("[\u2018\u2019]", "'"),
    ("[\u201c\u201d]", '"'),
    ("[^ -~]+", UNKNOWN),
)
"""Replacements, in order, before lower-casing: (regular expression, literal text)."""
AFTER_LOWER = (
    (r"(?<=[0-9)]) ?x ?(?=[0-9(])", "*"),
    (r" *\+ *", "+"),
    (r" *- *", "-"),
    (r" *\* *", "*"),
    (r" */ *", "/"),
    (r" *= *", "="),
    (r" *, *", ","),
    (r" *: *", ":"),
    (r" *; *", ";"),
    (r"\( +", "("),
    (r" +\)", ")"),
    (r"[ ?.!=:;,]+$", ""),
    (r"^[ ]+", ""),
)
"""Replacements, in order, after lower-casing."""
_TAG_PATTERN = re.compile("|".join(re.escape(token) for token in (*SPECIAL, *TAGS)))
_TOKEN_PATTERN = re.compile(_TAG_PATTERN.pattern + "|.", re.DOTALL)


def normalise(text: str) -> str:
    """``text`` (free of tags) as the model sees it."""
    for pattern, replacement in BEFORE_LOWER:
        text = re.sub(pattern, replacement, text)
    # ASCII by now, so lower() agrees with every other engine's.
    text = text.lower()
    for pattern, replacement in AFTER_LOWER:
        # \Z-like end: Python's $ would also match before a final newline, but none is left by now.
        text = re.sub(pattern, replacement, text)
    return text


def encode_prompt(text: str) -> list[int]:
    """Token ids of a prompt: tags stay whole, what lies between them is normalised.

    A tag in capitals becomes a tag by lower-casing; OpenVINO's tokenizer reads it as one, so it is one here.
    """
    parts: list[str] = []
    position = 0
    for match in _TAG_PATTERN.finditer(text):
        parts.extend((normalise(text[position : match.start()]), match.group()))
        position = match.end()
    return encode_completion("".join((*parts, normalise(text[position:]))))


def encode_completion(text: str) -> list[int]:
    """Token ids of text that the model is to write, taken literally; raises ``KeyError`` outside the vocabulary."""
    return [TOKEN_IDS[token] for token in _TOKEN_PATTERN.findall(text)]


def decode(ids: list[int]) -> str:
    """Text of token ids, padding and end marks dropped."""
    return "".join(VOCABULARY[index] for index in ids if index not in (PAD_ID, EOS_ID))
