"""Whether one text is in another set of texts: whole, by 13 or 8 words in a row, or nearly.

Used to keep evaluation problems out of training data, and to tell which problems of a suite are in it. The smaller set,
the problems, is indexed; the larger one, the training data, is streamed past, so memory depends on the problems alone.

Practice that this follows: words without case and punctuation, 13 in a row (Brown et al. 2020, appendix C, who also leave
out runs that are common), 8 in a row (open-r1, Tulu 3: `coverage` is the share that Tulu 3 puts its limit on). Rewording
and translation are found by none of them (Yang et al. 2023, arXiv 2311.04850): docs/data.md has a table.
"""

from __future__ import annotations

import math
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise

from ..schemas.errors import InvalidRequest
from ..schemas.evaluation import OverlapKind

SHORT_RUN_WORDS = 8
LONG_RUN_WORDS = 13
FUZZY_MIN = 0.6
"""Jaccard similarity from which on two texts are called similar."""
FUZZY_PAIRS_MIN = 16
"""Texts with fewer different pairs of words are never called similar: short and templated texts soon are."""
NGRAM8_COVERAGE_MIN = 0.5
"""Share of a problem that runs of 8 words must cover to count, as in Tulu 3: eight words in a row are often mere phrasing."""
COMMON_IN = 3
"""A run of words in this many different problems of the index or more is phrasing, not a sign."""
INDEX_WORDS_MAX = 20_000_000
"""Words of an index; more are refused. benchmarks/overlap.py measures the bytes that a word takes."""
TEXT_CHARS_MAX = 300
_FREQUENT_MIN = 16
_FREQUENT_SHARE = 0.05
"""A pair of words in more problems than this tells nothing about which one a text is."""

_EAST_ASIAN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[{_EAST_ASIAN}]|[^\W_{_EAST_ASIAN}]+")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_LATEX_LOOKS = re.compile(
    r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|text|textbf|textit|mathrm|mathbf|mathit|operatorname"
    r"|quad|qquad|[dt](?=frac|binom))(?![a-zA-Z])|\\[dt](?=frac|binom)"
)
_POSITION_BITS = 32
_POSITION_MASK = (1 << _POSITION_BITS) - 1
_Run = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Match:
    """A problem of the index that a text holds, or nearly."""

    item: str
    """Id of the problem."""
    kind: OverlapKind
    """The surest kind of match."""
    words: int
    """Length of the longest common run of words, phrasing not counted, if it is at least 8; 0 = there is none."""
    coverage: float
    """Share of the problem's own words that are in common runs of at least 8, 0..1."""
    similarity: float | None
    """Jaccard similarity as a whole, 0..1; None = not near enough to be computed."""
    text: str
    """The longest common run; for a match of another kind the beginning of the text. Normalised."""


@dataclass(slots=True)
class _Entry:
    """A problem, with all ids that stand for the same words."""

    ids: list[str]
    words: _Run
    phrasing: frozenset[int] = frozenset()
    """Positions of words in runs that many problems share: what a suite puts around each, say. Its own are the others."""
    pairs: array[int] = field(default_factory=lambda: array("q"))
    """Hashes of the pairs of its own words."""

    def own(self, first: int, last: int) -> set[int]:
        """Return which positions from `first` up to `last` hold words of its own."""
        return set(range(first, last)) - self.phrasing


@dataclass(slots=True)
class _Found:
    """What a text has in common with one entry."""

    covered: set[int] = field(default_factory=set[int])
    """Positions of the entry's own words in common runs."""
    longest: int = 0
    """Own words of the longest run."""
    first: int = 0
    last: int = 0
    """Where in the entry that run stands."""


def kinds_from(weakest: OverlapKind) -> tuple[OverlapKind, ...]:
    """Return the kinds of match from the surest to `weakest`."""
    kinds = list(OverlapKind)
    return tuple(kinds[: kinds.index(weakest) + 1])


def is_sign(kind: OverlapKind, coverage: float, counted: tuple[OverlapKind, ...]) -> bool:
    """Whether a match is taken as a sign that the problem is in the data."""
    return kind in counted and (kind is not OverlapKind.ngram8 or coverage >= NGRAM8_COVERAGE_MIN)


def normal_words(text: str) -> list[str]:
    """Return the words of a text as they are compared: without case, punctuation and the looks of LaTeX.

    Chinese, Japanese and Korean characters are words of their own.
    """
    plain = _LATEX_LOOKS.sub("\\\\", unicodedata.normalize("NFKC", text))
    return _WORD.findall(_THOUSANDS.sub("", plain).casefold())


def text_key(text: str) -> bytes:
    """Return a digest of 16 bytes that texts share exactly if they have the same words."""
    return blake2b(" ".join(normal_words(text)).encode("utf-8", "replace"), digest_size=16).digest()


class OverlapIndex:
    """The problems to look for. Hashes are compared first, words after that: no match rests on a hash."""

    def __init__(
        self, problems: Iterable[tuple[str, str]], *, fuzzy_min: float = FUZZY_MIN, common_in: int = COMMON_IN
    ) -> None:
        """Index (id, text) of each problem. Raises InvalidRequest for more than INDEX_WORDS_MAX words."""
        self._fuzzy_min = fuzzy_min
        self._common_in = common_in
        self._entries: list[_Entry] = []
        self._whole: dict[_Run, int] = {}
        self._runs: dict[int, int | tuple[int, ...]] = {}
        """Hash of 8 words → the place where they stand, or the places; empty where too many entries have them."""
        self._spellings: dict[str, str] = {}
        """Each word once: the entries share them."""
        self.words = 0
        """Words of all different problems together."""
        for item, text in problems:
            self._add(item, text)
        for entry in self._entries:
            self._set_apart(entry)
        self._candidates = self._prefixes()

    def __len__(self) -> int:
        """Return the number of different problems."""
        return len(self._entries)

    def _add(self, item: str, text: str) -> None:
        words = tuple(self._spellings.setdefault(word, word) for word in normal_words(text))
        known = self._whole.get(words)
        if known is not None:
            self._entries[known].ids.append(item)
            return
        number = len(self._entries)
        self.words += len(words)
        if self.words > INDEX_WORDS_MAX:
            raise InvalidRequest(
                f"the set to look for has more than {INDEX_WORDS_MAX:,} words: it is the smaller set that is indexed, and the "
                "larger one that is looked through; give it in parts"
            )
        self._entries.append(_Entry([item], words))
        if words:
            self._whole[words] = number
        runs = self._runs
        for position, key in enumerate(_run_hashes(words)):
            place = number << _POSITION_BITS | position
            known_places = runs.get(key)
            if known_places is None:
                runs[key] = place
                continue
            places = (known_places,) if isinstance(known_places, int) else known_places
            if places and all(other >> _POSITION_BITS != number for other in places):
                # Emptied, not removed: the next problem must not begin to count anew.
                runs[key] = () if len(places) + 1 >= self._common_in else (*places, place)

    def _set_apart(self, entry: _Entry) -> None:
        """Tell an entry's own words from phrasing, now that all entries are known."""
        phrasing: set[int] = set()
        for position, key in enumerate(_run_hashes(entry.words)):
            if self._runs[key] == ():
                phrasing.update(range(position, position + SHORT_RUN_WORDS))
        if len(phrasing) < len(entry.words):
            entry.phrasing = frozenset(phrasing)
        pairs = _pairs(entry.words)
        if entry.phrasing:
            masked = [_masked(word) for word in entry.words]
            own = sorted(entry.own(0, len(masked)))
            pairs = {hash((masked[here], masked[there])) for here, there in pairwise(own) if there == here + 1}
        entry.pairs = array("q", pairs)

    def _prefixes(self) -> dict[int, list[int]]:
        """Return pair of words → entries, of as many of each entry's rarest pairs as make sure that no similar text is missed.

        A text of similarity s has at least the share s of the entry's pairs, so it lacks fewer than are listed here.
        """
        counts = Counter(pair for entry in self._entries for pair in entry.pairs)
        frequent = max(_FREQUENT_MIN, _FREQUENT_SHARE * len(self._entries))
        candidates: dict[int, list[int]] = {}
        for number, entry in enumerate(self._entries):
            if len(entry.pairs) < FUZZY_PAIRS_MIN:
                continue
            lacking = len(entry.pairs) - math.ceil(self._fuzzy_min * len(entry.pairs))
            for pair in sorted(entry.pairs, key=lambda pair: (counts[pair], pair))[: lacking + 1]:
                if counts[pair] <= frequent:
                    candidates.setdefault(pair, []).append(number)
        return candidates

    def search(self, text: str) -> list[Match]:
        """Return the problems that the text holds, or nearly, the surest first."""
        words = tuple(normal_words(text))
        found = self._common_runs(words)
        same = self._whole.get(words)
        if same is not None:
            entry = self._entries[same]
            own = entry.own(0, len(words))
            found[same] = _Found(own, len(own), 0, len(words))
        similar = self._similar(words)
        matches = [
            match
            for number in found.keys() | similar.keys()
            for match in self._matches(number, found.get(number), similar.get(number), words)
        ]
        order = list(OverlapKind)
        return sorted(matches, key=lambda match: (order.index(match.kind), -match.words, match.item))

    def _matches(self, number: int, found: _Found | None, similarity: float | None, words: _Run) -> list[Match]:
        entry = self._entries[number]
        own = entry.own(0, len(entry.words))
        run = found.longest if found is not None else 0
        if run == len(own):
            kind = OverlapKind.exact
        elif run >= LONG_RUN_WORDS:
            kind = OverlapKind.ngram13
        elif run >= SHORT_RUN_WORDS:
            kind = OverlapKind.ngram8
        else:
            kind = OverlapKind.fuzzy
        text = entry.words[found.first : found.last] if found is not None else words
        covered = len(found.covered) / len(own) if found is not None else 0.0
        shown = " ".join(text)[:TEXT_CHARS_MAX]
        return [Match(item, kind, run, covered, similarity, shown) for item in entry.ids]

    def _common_runs(self, words: _Run) -> dict[int, _Found]:
        """Return by entry the runs of at least 8 words that the text has in common with it."""
        found: dict[int, _Found] = {}
        if self._runs.keys().isdisjoint(_run_hashes(words)):
            return found
        ends: dict[tuple[int, int], int] = {}
        for here, key in enumerate(_run_hashes(words)):
            places = self._runs.get(key, ())
            for place in (places,) if isinstance(places, int) else places:
                number, there = place >> _POSITION_BITS, place & _POSITION_MASK
                diagonal = (number, here - there)
                if here < ends.get(diagonal, 0):
                    continue
                entry = self._entries[number]
                first, last = _extent(words, here, entry.words, there)
                ends[diagonal] = last + here - there
                own = entry.own(first, last)
                if len(own) < SHORT_RUN_WORDS and len(own) < len(entry.words) - len(entry.phrasing):
                    continue
                known = found.setdefault(number, _Found())
                known.covered |= own
                if len(own) > known.longest:
                    known.longest, known.first, known.last = len(own), first, last
        return found

    def _similar(self, words: _Run) -> dict[int, float]:
        """Return by entry the similarity, where it is at least the least that counts."""
        pairs = _pairs(words)
        if len(pairs) < FUZZY_PAIRS_MIN:
            return {}
        numbers: set[int] = set()
        for pair in pairs & self._candidates.keys():
            numbers.update(self._candidates[pair])
        similar: dict[int, float] = {}
        for number in numbers:
            theirs = self._entries[number].pairs
            if not self._fuzzy_min * len(theirs) <= len(pairs) <= len(theirs) / self._fuzzy_min:
                continue
            both = sum(map(pairs.__contains__, theirs))
            similarity = both / (len(theirs) + len(pairs) - both)
            if similarity >= self._fuzzy_min:
                similar[number] = similarity
        # Similar to many problems at once: that is their common phrasing.
        return similar if len(similar) < self._common_in else {}


def _run_hashes(words: Sequence[str]) -> Iterable[int]:
    return map(hash, zip(*(words[offset:] for offset in range(SHORT_RUN_WORDS)), strict=False))


def _pairs(words: Sequence[str]) -> set[int]:
    """Return the hashes of all pairs of neighbours, with numbers and single letters taken as equal."""
    masked = [_masked(word) for word in words]
    return set(map(hash, pairwise(masked)))


def _masked(word: str) -> str:
    if word.isdecimal():
        return "#"
    return "@" if len(word) == 1 and word.isascii() else word


def _extent(words: _Run, here: int, theirs: _Run, there: int) -> tuple[int, int]:
    """Return where in `theirs` the run begins and ends that both have around these places."""
    first = there
    while first > 0 and here - (there - first) > 0 and theirs[first - 1] == words[here - (there - first) - 1]:
        first -= 1
    last, ahead = there, here
    while last < len(theirs) and ahead < len(words) and theirs[last] == words[ahead]:
        last += 1
        ahead += 1
    return first, last
