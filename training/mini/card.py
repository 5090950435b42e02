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
        f"Held-out problems: {total}. One underlying problem in {HELD_OUT_SHARE} is kept from training, two thirds of those for figures like these; each is asked once, typed the way",
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
    refusals, plans = evaluation["refusals"], policy["plans"]
    lines += ["", *_stages(evaluation["stages"])]
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
        *_judging(evaluation),
    ]
    return "\n".join(lines)


def _stages(stages: dict[str, Any]) -> list[str]:
    """What each stage of training brought, on the same problems."""
    names = {"base": "base", "sft": "SFT", "final": "SFT + GRPO"}
    lines = [
        "The stages of training, one sample at T = 1 of the same problems, paired differences with 95 % intervals:",
        "",
    ]
    lines += ["| stage | right | against the stage before |", "|---|---|---|"]
    for name, cell in stages.items():
        gain = cell.get("gain")
        shown = f"{100 * gain['share']:+.1f} [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}]" if gain else ""
        lines.append(f"| {names[name]} | {_percent(cell['single'])} | {shown} |")
    return lines


def _judging(evaluation: dict[str, Any]) -> list[str]:
    """Verdicts on pairs of one right and one wrong answer."""
    lines = ["The judge, on pairs of one right and one wrong answer, each pair in both orders:", ""]
    lines += [
        "| pairs | right shown first | right shown second | right in both orders | wrong in both | no verdict |",
        "|---|---|---|---|---|---|",
    ]
    rows = {"judging": "made up, T = 1", "judging_greedy": "made up, greedy", "judging_own": "its own samples, greedy"}
    columns = ("right_shown_first", "right_shown_second", "right_in_both_orders", "wrong_in_both_orders", "no_verdict")
    for key, label in rows.items():
        part = evaluation[key]
        cells = " | ".join(_percent(part[column]) for column in columns)
        lines.append(f"| {part['right_shown_first']['total']} {label} | {cells} |")
    return lines


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
