"""Matching the rules: groups of terms that must occur near one another, found in one pass over the words of a text.

No regular expression of a rule runs over the text, so the time is linear whatever the input: each distinct word is
looked up once, and each rule slides one window over the positions of its terms.
"""

import re
from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from functools import cache

from .lexicon import BENIGN, GROUPS, RULES, Rule
from .normalise import fold

WORDS_MAX = 400_000
"""Words of one reading that are looked at; more are screened in the same way piece by piece."""
RUN_CHARS_MAX = 400
SQUEEZED_CHARS_MIN = 14
"""Words of this length and more are searched for terms run together."""
TERM_CHARS_MIN = 4
"""Shortest term that is recognised inside run-together letters."""
SQUEEZED_MAX = 400
"""Run-together words looked at per reading."""

_WORD = re.compile(r"[^\W_](?:[^\W_]|[@$!|'’](?=[^\W_]))*|[@$|](?:[^\W_]|[@$!|](?=[^\W_]))+")
_SPELT = re.compile(r"(?<![^\W_])[^\W_](?:[ \t._*|~+/\\-]{1,3}[^\W_](?![^\W_])){2,}")
_LEET = str.maketrans("013456789@$!|", "oieasgtbgasil")


@dataclass(frozen=True, slots=True)
class _Index:
    """Terms by their first word; a trailing `*` of a word stands for any ending."""

    exact: dict[str, tuple[tuple[tuple[str, ...], str], ...]]
    prefix: dict[str, tuple[tuple[tuple[str, ...], str], ...]]
    squeezed: tuple[tuple[str, str], ...]


def match_rules(text: str, *, asked: bool) -> str | None:
    """Return the category of the first rule that `text` (not folded) meets; None = none does.

    `asked`: the text is a request (rules against overriding instructions apply); otherwise it is an answer.
    """
    folded = fold(text)
    words = [word.replace("'", "").replace("’", "") for word in _WORD.findall(folded)]
    for start in range(0, max(len(words), 1), WORDS_MAX):
        hits = _hits(words[start : start + WORDS_MAX])
        _add_spelt(folded, hits)
        for rule in RULES:
            if (asked or not rule.asked_only) and _met(rule, hits):
                return rule.category
    return None


def _hits(words: list[str]) -> dict[str, list[int]]:
    """Return the positions (word numbers, ascending) at which each group occurs."""
    hits: dict[str, list[int]] = defaultdict(list)
    masked = _masked(words)
    seen: dict[str, tuple[tuple[tuple[str, ...], str], ...]] = {}
    squeezed = 0
    for position, word in enumerate(words):
        terms = seen.get(word)
        if terms is None:
            terms = seen[word] = _terms_of(word)
            if len(word) >= SQUEEZED_CHARS_MIN and squeezed < SQUEEZED_MAX:
                squeezed += 1
                terms = seen[word] = (*terms, *(((), group) for group in _inside(word)))
        if not terms or position in masked:
            continue
        for rest, group in terms:
            if not rest or _follows(words, position + 1, rest):
                hits[group].append(position)
    return hits


def _terms_of(word: str) -> tuple[tuple[tuple[str, ...], str], ...]:
    index = _index()
    found: list[tuple[tuple[str, ...], str]] = []
    for spelling in {word, plain_letters(word)}:
        found.extend(index.exact.get(spelling, ()))
        for length in range(3, min(len(spelling), 14) + 1):
            found.extend(index.prefix.get(spelling[:length], ()))
    return tuple(found)


def plain_letters(word: str) -> str:
    """Return a word with digits and signs read as the letters they stand for; numbers stay numbers."""
    if word.isalpha() or not any(character.isalpha() for character in word):
        return word
    return word.translate(_LEET)


def _follows(words: list[str], position: int, rest: tuple[str, ...]) -> bool:
    for offset, term in enumerate(rest):
        if position + offset >= len(words):
            return False
        word = words[position + offset]
        if term.endswith("*"):
            if not (word.startswith(term[:-1]) or plain_letters(word).startswith(term[:-1])):
                return False
        elif term not in (word, plain_letters(word)):
            return False
    return True


def _masked(words: list[str]) -> set[int]:
    """Return the positions of words inside harmless phrases (`bath bomb`, `kill the process`)."""
    masked: set[int] = set()
    phrases = _benign()
    for position, word in enumerate(words):
        for rest in phrases.get(word, ()):
            if _follows(words, position + 1, rest):
                masked.update(range(position, position + 1 + len(rest)))
    return masked


def _add_spelt(folded: str, hits: dict[str, list[int]]) -> None:
    """Add what is spelt out letter by letter (`b o m b`, `b.o.m.b`), at the word where it begins."""
    count = words = last = 0
    for match in _SPELT.finditer(folded):
        count += 1
        if count > SQUEEZED_MAX:
            return
        joined = plain_letters("".join(c for c in match.group()[: 3 * RUN_CHARS_MAX] if c.isalnum()))
        groups = _inside(joined)
        if not groups:
            continue
        words, last = words + len(_WORD.findall(folded, last, match.start())), match.start()
        for group in groups:
            positions = hits.setdefault(group, [])
            positions.insert(bisect_left(positions, words), words)


def _inside(word: str) -> set[str]:
    """Return the groups with a term somewhere inside run-together letters."""
    letters = plain_letters(word[:RUN_CHARS_MAX])
    return {group for term, group in _index().squeezed if term in letters}


def _met(rule: Rule, hits: dict[str, list[int]]) -> bool:
    """Tell whether all groups occur within the window around a term of the rarest one, and nothing near it excuses."""
    columns = sorted((hits.get(group, []) for group in rule.all), key=len)
    if not columns[0]:
        return False
    excuses = [hits[group] for group in rule.unless if group in hits]
    anchors, others = columns[0], columns[1:]
    for anchor in anchors:
        if all(_any_within(column, anchor, rule.window) for column in others) and not any(
            _any_within(column, anchor, 2 * rule.window) for column in excuses
        ):
            return True
    return False


def _any_within(positions: list[int], anchor: int, window: int) -> bool:
    place = bisect_left(positions, anchor - window)
    return place < len(positions) and positions[place] <= anchor + window


@cache
def _index() -> _Index:
    exact: dict[str, list[tuple[tuple[str, ...], str]]] = defaultdict(list)
    prefix: dict[str, list[tuple[tuple[str, ...], str]]] = defaultdict(list)
    squeezed: list[tuple[str, str]] = []
    for group, terms in GROUPS.items():
        for term in terms:
            first, *rest = term.split()
            table = prefix if first.endswith("*") else exact
            table[first.removesuffix("*")].append((tuple(rest), group))
            letters = term.replace(" ", "").replace("*", "")
            if len(letters) >= TERM_CHARS_MIN:
                squeezed.append((letters, group))
    return _Index(
        exact={word: tuple(terms) for word, terms in exact.items()},
        prefix={word: tuple(terms) for word, terms in prefix.items()},
        squeezed=tuple(squeezed),
    )


@cache
def _benign() -> dict[str, tuple[tuple[str, ...], ...]]:
    phrases: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for phrase in BENIGN:
        first, *rest = phrase.split()
        phrases[first].append(tuple(rest))
    return {first: tuple(rests) for first, rests in phrases.items()}
