"""Answer text to one plain notation: LaTeX spacing, fonts and synonyms, Unicode signs, programmers' operators.

The result is still a string. Letters keep their case. Set braces become ``⦃ ⦄`` so that they cannot be mistaken
for LaTeX's grouping braces; :func:`to_latex` turns them back.
"""

from __future__ import annotations

import re
import unicodedata

MAX_ANSWER_CHARS = 4_000
"""Longer answers are compared as text only: no answer in a reference set is that long, hostile ones are."""

MAX_CALLS = 60
"""Calls such as sqrt(…) that are rewritten; what follows keeps its notation."""

SET_OPEN, SET_CLOSE = "⦃", "⦄"

FUNCTIONS = (
    *("arcsin", "arccos", "arctan", "arcsinh", "arccosh", "arctanh", "sinh", "cosh", "tanh", "sin", "cos", "tan"),
    *("cot", "sec", "csc", "ln", "log", "lg", "exp", "min", "max", "gcd", "lcm", "det"),
)
GREEK = (
    *("alpha", "beta", "gamma", "delta", "epsilon", "theta", "lambda", "mu", "pi", "rho", "sigma", "tau", "phi"),
    *("omega", "infty"),
)

_UNICODE = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": "*", "·": "*", "⋅": "*", "∙": "*", "∗": "*", "÷": "/",
        "⁄": "/", "∕": "/", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∞": r"\infty ", "π": r"\pi ", "θ": r"\theta ",
        "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ", "μ": r"\mu ", "φ": r"\phi ", "∪": r"\cup ",
        "∩": r"\cap ", "∈": r"\in ", "±": r"\pm ", "∅": r"\emptyset ", "°": " deg", "º": " deg", "′": "'",
        "“": '"', "”": '"', "‘": "'", "’": "'", "⟨": "(", "⟩": ")", "…": "...", "，": ",", "（": "(", "）": ")",
        "\u00a0": r"\,", "\u202f": r"\,", "\u2009": r"\,", "\u200b": None, "\u2061": None, "\ufeff": None,
    }
)  # fmt: skip
_SUPERSCRIPTS = {c: str(i) for i, c in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")} | {"⁻": "-", "⁺": "+", "ⁿ": "n"}
_SUPERSCRIPT_RUN = re.compile("[" + "".join(_SUPERSCRIPTS) + "]+")

_FRAMES = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_SIMPLE: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<=\d)(?:\\,|\\!|\{,\})(?=\d{3}(?!\d))", ","),  # 1\,234 and 1{,}234: thousands
        (r"\\(?:left|right|bigl|bigr|Bigl|Bigr|biggl|biggr|big|Big|bigg|Bigg)(?![a-zA-Z])\s*\.?", ""),
        (r"\\(?:displaystyle|textstyle|limits|nolimits)(?![a-zA-Z])", ""),
        (r"(?<!\\)\\(?:[,;:!> ]|q?quad(?![a-zA-Z]))|~", " "),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\^\s*\{?\s*\\(?:circ|degree)\s*\}?|\\degree(?![a-zA-Z])", " deg "),
        (r"\\(?:cdot|times|ast)(?![a-zA-Z])", "*"),
        (r"\\div(?![a-zA-Z])", "/"),
        (r"\\leqs?lant(?![a-zA-Z])|\\leq(?![a-zA-Z])", r"\\le "),
        (r"\\geqs?lant(?![a-zA-Z])|\\geq(?![a-zA-Z])", r"\\ge "),
        (r"\\neq(?![a-zA-Z])", r"\\ne "),
        (r"\\lt(?![a-zA-Z])", "<"),
        (r"\\gt(?![a-zA-Z])", ">"),
        (r"<=", r"\\le "),
        (r">=", r"\\ge "),
        (r"\\(?:\{|lbrace(?![a-zA-Z]))", SET_OPEN),
        (r"\\(?:\}|rbrace(?![a-zA-Z]))", SET_CLOSE),
        (r"\\langle(?![a-zA-Z])", "("),
        (r"\\rangle(?![a-zA-Z])", ")"),
        (r"\\(?:varnothing|empty)(?![a-zA-Z])", r"\\emptyset "),
        (r"\\(?:lvert|rvert|vert)(?![a-zA-Z])", "|"),
        (r"\\(%|\$|#|&(?!\s))", r"\1"),
        (r"\*\*(?=[^*])", "^"),
    )
)
_FONTS = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|math(?:rm|bf|it|sf|tt|normal)|mbox|hbox|operatorname|boldsymbol|bm)\s*\{([^{}]*)\}"
)
_SHORT_FRAC = re.compile(r"\\frac\s*(?:(\d)\s*(\d)|(\d)\s*\{|\{([^{}]*)\}\s*(\d))")
_SHORT_SQRT = re.compile(r"\\sqrt\s*(\d|[a-zA-Z](?![a-zA-Z]))")
_SLASHED_WORD = re.compile(r"(?<![a-zA-Z\\])(" + "|".join(FUNCTIONS) + r")(?=\s*[\\(^_\d]|\s+[a-zA-Z](?![a-zA-Z]))")
_GREEK_WORD = re.compile(r"(?<![a-zA-Z\\])(" + "|".join(GREEK) + r")(?![a-zA-Z])")
_INFINITY = re.compile(r"(?<![a-zA-Z\\])(?:infinity|inf|oo)(?![a-zA-Z])", re.IGNORECASE)
_CALL = re.compile(r"\\?(?<![a-zA-Z])(sqrt|√|exp|abs)\s*\(|√\s*\{|\^\s*\(")
_ROOT_OF_ATOM = re.compile(r"√\s*(\d+(?:\.\d+)?|[a-zA-Z])")
_LONG_EXPONENT = re.compile(r"\^\s*([+-]?\d{2,}|[+-]\d+|[+-][a-zA-Z])(?![\d.])")
_SPACES = re.compile(r"\s+")
_EDGE_PUNCTUATION = " \t\r\n.,;:!"


def normalise(text: str) -> str:
    """One notation for `text`; longer texts than MAX_ANSWER_CHARS come back with whitespace collapsed, else untouched."""
    if len(text) > MAX_ANSWER_CHARS:
        return _SPACES.sub(" ", text).strip()
    text = _unframe(_expand_vulgar_fractions(text).translate(_UNICODE).strip())
    text = _SUPERSCRIPT_RUN.sub(lambda m: "^{" + "".join(_SUPERSCRIPTS[c] for c in m.group()) + "}", text)
    text = unicodedata.normalize("NFC", text)
    for pattern, replacement in _SIMPLE:
        text = pattern.sub(replacement, text)
    for _ in range(4):  # fonts nest: \text{\bf …}
        text, count = _FONTS.subn(r" \1 ", text)
        if not count:
            break
    text = _unframe(text)
    text = _SHORT_FRAC.sub(_braced_frac, text)
    text = _SHORT_SQRT.sub(r"\\sqrt{\1}", text)
    text = _ROOT_OF_ATOM.sub(r"\\sqrt{\1}", text)
    text = _rewrite_calls(text)
    text = _LONG_EXPONENT.sub(r"^{\1}", text)
    text = _INFINITY.sub(r"\\infty ", text)
    text = _SLASHED_WORD.sub(r"\\\1", text)
    text = _GREEK_WORD.sub(r"\\\1 ", text)
    text = _SPACES.sub(" ", text).strip()
    return _strip_edges(text)


def to_latex(text: str) -> str:
    """Normalised text as LaTeX that a LaTeX parser reads."""
    return text.replace(SET_OPEN, r"\{").replace(SET_CLOSE, r"\}").replace("*", r" \cdot ").replace("%", r"\%")


def fold(text: str) -> str:
    """Text for comparison as words: case, spaces and surrounding quotes and full stops do not count.

    A space between two digits does count: "1 23" is not "12 3".
    """
    text = unicodedata.normalize("NFKC", text).casefold().strip().strip("\"'`").strip(_EDGE_PUNCTUATION)
    text = re.sub(r"(?<=\d)\s+(?=\d)", "\x00", text)
    return re.sub(r"\s+", "", text).replace("\x00", " ")


def matching(text: str, start: int) -> int:
    """Index of the bracket that closes the one at `start` (any of ``( [ {`` and set braces), or -1."""
    pairs = {"(": ")", "[": "]", "{": "}", SET_OPEN: SET_CLOSE}
    opening, closing = text[start], pairs[text[start]]
    depth = 0
    for i in range(start, len(text)):
        if text[i] == opening:
            depth += 1
        elif text[i] == closing:
            depth -= 1
            if depth == 0:
                return i
    return -1


def split_top(text: str, separators: str) -> list[str]:
    """`text` cut at each separator character that stands outside every bracket."""
    parts: list[str] = []
    depth, start = 0, 0
    for i, char in enumerate(text):
        if char in "([{" or char == SET_OPEN:
            depth += 1
        elif char in ")]}" or char == SET_CLOSE:
            depth -= 1
        elif char in separators and depth <= 0:
            parts.append(text[start:i])
            start = i + 1
    parts.append(text[start:])
    return parts


def _unframe(text: str) -> str:
    changed = True
    while changed:
        changed = False
        for opening, closing in _FRAMES:
            inner = text[len(opening) : len(text) - len(closing)]
            framed = len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing)
            if framed and closing not in inner:
                text, changed = inner.strip(), True
    return text


def _strip_edges(text: str) -> str:
    text = text.strip("`").strip()
    while text and text[-1] in ".,;:" and not text.endswith("..."):
        text = text[:-1].rstrip()
    if text.startswith(".") and not text[1:2].isdigit():
        text = text.lstrip(". ")
    return text


def _expand_vulgar_fractions(text: str) -> str:
    out: list[str] = []
    for char in text:
        parts = unicodedata.normalize("NFKC", char).split("⁄") if not char.isascii() else ()
        if len(parts) == 2 and all(p.isdigit() for p in parts):
            out.append(rf"\frac{{{parts[0]}}}{{{parts[1]}}}")
        else:
            out.append(char)
    return "".join(out)


def _braced_frac(match: re.Match[str]) -> str:
    a, b, c, d, e = match.groups()
    if a is not None:
        return rf"\frac{{{a}}}{{{b}}}"
    if c is not None:
        return rf"\frac{{{c}}}{{"
    return rf"\frac{{{d}}}{{{e}}}"


def _rewrite_calls(text: str) -> str:
    """sqrt(x), √(x), exp(x), abs(x) and ^(x) to LaTeX, the first MAX_CALLS of them."""
    position = 0
    for _ in range(MAX_CALLS):
        match = _CALL.search(text, position)
        if match is None:
            return text
        start = match.end() - 1
        end = matching(text, start)
        if end < 0:
            position = match.end()
            continue
        head, inner = match.group(), text[start + 1 : end]
        if head.startswith("^"):
            new = "^{" + inner + "}"
        elif "exp" in head:
            new = "e^{" + inner + "}"
        elif "abs" in head:
            new = "|" + inner + "|"
        else:
            new = r"\sqrt{" + inner + "}"
        text = text[: match.start()] + new + text[end + 1 :]
        position = match.start() + 1
    return text
