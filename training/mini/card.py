"""The measured part of the model card, written from the evaluation so that no figure is typed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .families import FAMILIES, HELD_OUT_SHARE
from .refusals import OUTSIDE_PROMPTS

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def _percent(rate: dict[str, Any], *, interval: bool = True) -> str:
    share = f"{100 * rate['share']:.1f}"
    return f"{share} [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]" if interval else share


def figures(evaluation: dict[str, Any]) -> str:
    """The tables of the card as Markdown; shares in per cent, 95 % Wilson intervals in brackets."""
    plain, policy, greedy = evaluation["solving"], evaluation["solving_by_policy"], evaluation["solving_greedy"]
    total = plain["overall"]["single"]["total"]
    lines = [
        f"Held-out problems: {total}. One underlying problem in {HELD_OUT_SHARE} is kept from training; each is asked once, typed the way",
        "people type (capitals, spaces, closing signs). Per cent right, with 95 % Wilson intervals; exact match, nothing for being close.",
        "",
        "| family | one sample, T = 1 | majority of 3, T = 1 | with own plan, T = 1, top-p 0.95, one sample | majority of 3 | greedy | refused wrongly |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = [(name, *(part["families"][name] for part in (plain, policy, greedy))) for name in FAMILIES]
    rows.append(("overall", plain["overall"], policy["overall"], greedy["overall"]))
    for name, a, b, c in rows:
        cells = [_percent(a["single"]), _percent(a["majority"], interval=False), _percent(b["single"]),
                 _percent(b["majority"], interval=False), _percent(c["single"], interval=False),
                 _percent(a["refused"], interval=False)]  # fmt: skip
        lines.append(f"| {name} | {' | '.join(cells)} |")
    refusals, judging, plans = evaluation["refusals"], evaluation["judging"], policy["plans"]
    lines += [
        "",
        f"Refusals: {len(OUTSIDE_PROMPTS)} hand-written prompts outside the families, three samples each at T = 1: no answer in",
        f"{_percent(refusals['no_answer'])} % of the samples; no majority for an answer in {_percent(refusals['no_answer_after_vote'])} % of the prompts.",
    ]
    if refusals["answered"]:
        lines += ["Answered at least once though outside (samples of 3):", ""]
        lines += [f"- {prompt} ({count})" for prompt, count in refusals["answered"].items()]
    lines += [
        "",
        f"Plans: {_percent(plans['usable'])} % are one of the plan lines, {_percent(plans['right'])} % the line of the right method.",
        "",
        f"Judge, on {judging['right_shown_first']['total']} pairs of one right and one plausible wrong answer, T = 1: right when the right one is shown first",
        f"{_percent(judging['right_shown_first'])} %, second {_percent(judging['right_shown_second'])} %; right in both orders",
        f"{_percent(judging['right_in_both_orders'])} %, wrong in both {_percent(judging['wrong_in_both_orders'])} % (the rest flips, which counts as a tie).",
    ]
    return "\n".join(lines)


def ranges() -> str:
    """The families and their difficulty as Markdown list items."""
    return "\n".join(f"- **{family.name}**: {family.ranges}." for family in FAMILIES.values())


def update_card(folder: Path) -> None:
    """Replaces the measured part of ``README.md`` in ``folder`` by what ``evaluation.json`` there says.

    Raises ``ValueError`` when the card lacks the two marker lines.
    """
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise ValueError(f"{card} lacks the lines {BEGIN} and {END}")
    evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    card.write_text(f"{before}{BEGIN}\n{ranges()}\n\n{figures(evaluation)}\n{END}{after}", encoding="utf-8")
