"""Matching the rules: groups of terms that must occur near one another, found in one pass over the words of a text.

No regular expression of a rule runs over the text, so the time is linear whatever the input: each distinct word is
looked up once, and each rule slides one window over the positions of its terms.
"""

import re
from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field
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
_NOT_A_LETTER = re.compile("[013456789@$!|'’]")
_LEET = str.maketrans("013456789@$!|", "oieasgtbgasil", "'’")


@dataclass(slots=True)
class _Entry:
    """What can begin with a word."""

    groups: list[str] = field(default_factory=list[str])
    """Groups of one-word terms."""
    seconds: dict[str, list[tuple[tuple[str, ...], str]]] = field(
        default_factory=dict[str, list[tuple[tuple[str, ...], str]]]
    )
    """Second word → what follows it, group."""
    open_seconds: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Beginning of a second word that ends the term anyhow, group."""


@dataclass(frozen=True, slots=True)
class _Index:
    """Terms by their first word; a trailing `*` of a word stands for any ending."""

    exact: dict[str, _Entry]
    prefix: dict[str, _Entry]
    squeezed: tuple[tuple[str, str], ...]
    """(term, group) of terms long enough to be recognised inside run-together letters."""


def match_rules(text: str, *, asked: bool) -> str | None:
    """Return the category of the first rule that `text` (not folded) meets; None = none does.

    `asked`: the text is a request (rules against overriding instructions apply); otherwise it is an answer.
    """
    folded = fold(text)
    spellings: dict[str, str] = {}
    words: list[str] = []
    for word in _WORD.findall(folded):
        plain = spellings.get(word)
        if plain is None:
            plain = spellings[word] = plain_letters(word)
        words.append(plain)
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
    entries: dict[str, _Entry | None] = {}
    squeezed = 0
    last = len(words) - 1
    for position, word in enumerate(words):
        if word in entries:
            entry = entries[word]
        else:
            entry = _entry_of(word)
            if len(word) >= SQUEEZED_CHARS_MIN and squeezed < SQUEEZED_MAX:
                squeezed += 1
                inside = _inside(word)
                if inside:
                    entry = entry or _Entry()
                    entry.groups.extend(inside)
            entries[word] = entry
        if entry is None or position in masked:
            continue
        for group in entry.groups:
            hits[group].append(position)
        if position == last:
            continue
        following = words[position + 1]
        for rest, group in entry.seconds.get(following, ()):
            if not rest or _follows(words, position + 2, rest):
                hits[group].append(position)
        for beginning, group in entry.open_seconds:
            if following.startswith(beginning):
                hits[group].append(position)
    return hits


def _entry_of(word: str) -> _Entry | None:
    """Return all that can begin with a word; None = nothing."""
    index = _index()
    found = [index.exact[word]] if word in index.exact else []
    found += [
        index.prefix[word[:length]] for length in range(3, min(len(word), 14) + 1) if word[:length] in index.prefix
    ]
    if not found:
        return None
    merged = _Entry()
    for entry in found:
        merged.groups.extend(entry.groups)
        merged.open_seconds.extend(entry.open_seconds)
        for second, rests in entry.seconds.items():
            merged.seconds.setdefault(second, []).extend(rests)
    return merged


def plain_letters(word: str) -> str:
    """Return a word without apostrophes, digits and signs read as the letters they stand for; numbers stay numbers."""
    if word.isdigit() or _NOT_A_LETTER.search(word) is None:
        return word
    if any(character.isalpha() for character in word):
        return word.translate(_LEET)
    return word


def _follows(words: list[str], position: int, rest: tuple[str, ...]) -> bool:
    for offset, term in enumerate(rest, position):
        if offset >= len(words):
            return False
        if words[offset] != term and not (term.endswith("*") and words[offset].startswith(term[:-1])):
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
    exact: dict[str, _Entry] = defaultdict(_Entry)
    prefix: dict[str, _Entry] = defaultdict(_Entry)
    squeezed: list[tuple[str, str]] = []
    for group, terms in GROUPS.items():
        for term in terms:
            first, *rest = (plain_letters(word.removesuffix("*")) + "*" * word.endswith("*") for word in term.split())
            entry = prefix[first[:-1]] if first.endswith("*") else exact[first]
            if not rest:
                entry.groups.append(group)
            elif rest[0].endswith("*"):
                entry.open_seconds.append((rest[0][:-1], group))
            else:
                entry.seconds.setdefault(rest[0], []).append((tuple(rest[1:]), group))
            letters = "".join((first, *rest)).replace("*", "")
            if len(letters) >= TERM_CHARS_MIN:
                squeezed.append((letters, group))
    return _Index(exact=dict(exact), prefix=dict(prefix), squeezed=tuple(squeezed))


@cache
def _benign() -> dict[str, tuple[tuple[str, ...], ...]]:
    phrases: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for phrase in BENIGN:
        first, *rest = phrase.split()
        phrases[first].append(tuple(rest))
    return {first: tuple(rests) for first, rests in phrases.items()}
