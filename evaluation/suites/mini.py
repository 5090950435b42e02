"""Fresh problems of k2think-mini's families: drawn from a seed, held out from training, each underlying problem once.

Two kinds of seed, and two halves of what is held out, which share no problem: one to choose by, one to report. A figure
that is published comes from a report seed, and nothing may be chosen by what a report seed showed.
"""

from __future__ import annotations

import hashlib
import random

from ...schemas.errors import InvalidRequest
from ...schemas.evaluation import Item
from ...schemas.scores import Domain, Task
from ...training.mini.families import FAMILIES, Problem, Side, draw_problem
from ...training.mini.handwriting import as_typed
from .options import SuiteOptions

PROBLEMS = 800
"""Where no number is asked for."""
DEVELOPMENT_SEEDS = range(0, 1_000_000)
"""Seeds that anyone may use while something is being chosen."""
REPORT_SEEDS = range(1_000_000, 1_001_000)
"""Seeds of published figures; only `report` opens them."""
DRAWS_IN_VAIN = 150
"""A family counts as exhausted after so many draws without a new problem: some have few (divisors: 29 held out)."""


def mini(options: SuiteOptions) -> tuple[Item, ...]:
    """Return fresh problems, the families in turn, as people type them. Raises InvalidRequest."""
    _refuse_others(options)
    names = options.families or tuple(FAMILIES)
    if unknown := sorted(set(names) - set(FAMILIES)):
        raise InvalidRequest(f"mini: there is no family {', '.join(unknown)}; choose among {', '.join(FAMILIES)}")
    seed, side = _seed(options)
    wanted = PROBLEMS if options.n is None else options.n
    drawn = _drawn(dict.fromkeys(names), wanted, seed=seed, side=side)
    if sum(map(len, drawn.values())) < wanted:
        found = ", ".join(f"{len(items)} of {name}" for name, items in drawn.items())
        raise InvalidRequest(
            f"mini: these families have no {wanted:,} different problems to ask ({found}): ask for fewer"
        )
    return _in_turn(drawn)


def resolved(options: SuiteOptions) -> SuiteOptions:
    """Return the options with what was left open filled in. Raises InvalidRequest."""
    seed, _side = _seed(options)
    return options.model_copy(update={"seed": seed, "n": PROBLEMS if options.n is None else options.n})


def _seed(options: SuiteOptions) -> tuple[int, Side]:
    seeds = REPORT_SEEDS if options.report else DEVELOPMENT_SEEDS
    seed = seeds[0] if options.seed is None else options.seed
    if seed in seeds:
        return seed, Side.report if options.report else Side.development
    if options.report:
        raise InvalidRequest(
            f"mini: {seed} is no report seed: figures to publish are drawn with seeds from {seeds[0]:,} to {seeds[-1]:,}, "
            "so that nobody has chosen anything by them; leave the seed out for the first of them"
        )
    if seed in REPORT_SEEDS:
        raise InvalidRequest(
            f"mini: the seed {seed} is kept for figures that are published, and nothing may be chosen by what it shows; "
            f"while you try things use a seed below {DEVELOPMENT_SEEDS.stop:,}, for a final figure add --report"
        )
    raise InvalidRequest(f"mini: the seed must be below {DEVELOPMENT_SEEDS.stop:,}, or a report seed with --report")


def _drawn(names: dict[str, None], wanted: int, *, seed: int, side: Side) -> dict[str, list[Item]]:
    """Draw an equal part from each family; what a small family lacks comes from the others.

    Every family has a generator of its own, so that the first problems are the same however many are asked for.
    """
    families = {name: _Fresh(name, seed=seed, side=side) for name in names}
    drawn: dict[str, list[Item]] = {name: [] for name in names}
    count = 0
    while count < wanted and families:
        for name in tuple(families):
            item = families[name].next() if count < wanted else None
            if item is not None:
                drawn[name].append(item)
                count += 1
            elif count < wanted:
                del families[name]
    return drawn


class _Fresh:
    """The problems of one family, each underlying one once."""

    def __init__(self, family: str, *, seed: int, side: Side) -> None:
        self._family = family
        self._seed = seed
        self._side = side
        # Seeded by text, which hashes the same in every process and lets neighbouring seeds share nothing.
        self._draws = random.Random(f"mini/{seed}/{family}")
        self._hand = random.Random(f"mini/{seed}/{family}/as typed")
        self._seen: set[str] = set()

    def next(self) -> Item | None:
        """Return a problem that has not been drawn yet; None when there are no more."""
        for _ in range(DRAWS_IN_VAIN):
            problem = draw_problem(self._draws, self._family, self._side)
            key = repr(problem.key)
            if key not in self._seen:
                self._seen.add(key)
                return self._item(problem)
        return None

    def _item(self, problem: Problem) -> Item:
        digest = hashlib.sha256(repr((problem.family, problem.key)).encode()).hexdigest()[:12]
        task = Task(
            # The underlying problem and the seed of its wording: two seeds may meet the same problem in other words.
            id=f"mini-{problem.family}-{digest}-{self._seed}",
            domain=Domain.procedural,
            source=f"mini:{problem.family}",
            prompt=as_typed(self._hand, problem.text),
            truth=problem.answer,
        )
        return Item(task=task, subset=problem.family)


def _in_turn(drawn: dict[str, list[Item]]) -> tuple[Item, ...]:
    """Mix the families, so that the first part of a suite is a smaller suite."""
    longest = max(map(len, drawn.values()))
    return tuple(items[row] for row in range(longest) for items in drawn.values() if row < len(items))


def _refuse_others(options: SuiteOptions) -> None:
    for name in ("path", "hub", "revision", "published_from", "published_until", "targets_file"):
        if getattr(options, name) is not None:
            raise InvalidRequest(
                f"mini: its problems are drawn, not read, so {name.replace('_', '-')} means nothing here"
            )
