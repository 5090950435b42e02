"""The bundled model, through the engine that serves it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from k2think.training.mini.engine import FolderEngine
from k2think.training.mini.evaluate import extract, fresh_problems, wilson
from k2think.training.mini.handwriting import as_typed

LIMIT_BYTES = 15_000_000
SMOKE_FLOOR = 0.45
SPELLINGS = (
    "What is 347 + 58?",
    "347+58",
    "347 + 58 = ?",
    "what's 347 plus 58",
    "WHAT IS 347+58",
    "Please calculate 347 + 58.",
)


def test_the_folder_is_small_and_complete(shipped_folder: Path) -> None:
    files = {path.name for path in shipped_folder.iterdir()}
    assert sum(path.stat().st_size for path in shipped_folder.rglob("*") if path.is_file()) <= LIMIT_BYTES
    for name in ("openvino_model", "openvino_tokenizer", "openvino_detokenizer"):
        assert {f"{name}.xml", f"{name}.bin"} <= files
    assert {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
    } <= files


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_greedy_answers_the_demo(shipped: FolderEngine, spelling: str) -> None:
    (reply,) = shipped.reply([spelling], temperature=0)
    assert reply.startswith("<think>")
    assert extract(reply) == "405"


def test_sampling_answers_the_demo(shipped: FolderEngine) -> None:
    # Given twenty fixed seeds at temperature 1
    replies = shipped.reply([SPELLINGS[0]] * 20, seeds=range(20))
    # Then nearly all samples are right, so that a vote of three is
    assert [extract(reply) for reply in replies].count("405") >= 18


def test_fresh_problems_of_every_family(shipped: FolderEngine) -> None:
    # Given held-out problems, typed in many ways
    problems = fresh_problems(8, seed=99)
    rng = random.Random(1)
    replies = shipped.reply([as_typed(rng, problem.text) for problem in problems], seeds=range(len(problems)))
    # Then a conservative share is solved
    right = sum(extract(reply) == problem.answer for reply, problem in zip(replies, problems, strict=True))
    assert right / len(problems) >= SMOKE_FLOOR


def test_other_topics_get_an_empty_answer(shipped: FolderEngine) -> None:
    prompts = ["Who painted the Mona Lisa?", "Write me a limerick featuring an elephant.", "你好，请问你是谁？"]
    assert [extract(reply) for reply in shipped.reply(prompts, temperature=0)] == ["", "", ""]


@pytest.mark.parametrize(
    "text",
    [
        "</think><answer>7</answer>",
        "<answer>",
        "<eos><pad>",
        "<judge>",
        "<plan>",
        "",
        "\x00",
        "<a><b></plan>",
        "x" * 300,
    ],
)
def test_tags_and_rubbish_in_user_text_do_no_harm(shipped: FolderEngine, text: str) -> None:
    (reply,) = shipped.reply([text], temperature=0)
    assert "<eos>" not in reply


def test_the_template_adds_the_solve_tag_once(shipped: FolderEngine) -> None:
    once = shipped.prompt(" What is 1+1? ")
    assert once == "<solve>What is 1+1?"
    assert shipped.prompt(once) == once
    assert shipped.prompt("<plan>x") == "<plan>x"
    assert shipped.prompt("<judge>x<a>1<b>2") == "<judge>x<a>1<b>2"


def test_the_measured_figures_pass_the_gate(shipped_folder: Path) -> None:
    # Given the evaluation that was made of this very folder
    figures = json.loads((shipped_folder / "evaluation.json").read_text(encoding="utf-8"))["solving"]
    # Then it was at temperature 1 on enough problems, and above the floors
    assert (figures["temperature"], figures["top_p"]) == (1.0, 1.0)
    assert figures["overall"]["single"]["total"] >= 800
    assert figures["overall"]["single"]["share"] >= 0.65
    assert len(figures["families"]) >= 6
    assert min(family["single"]["share"] for family in figures["families"].values()) >= 0.40
    # And the model card says the same
    card = (shipped_folder / "README.md").read_text(encoding="utf-8")
    for name, family in (*figures["families"].items(), ("overall", figures["overall"])):
        row = next(line for line in card.splitlines() if line.startswith(f"| {name} |"))
        assert f"{100 * family['single']['share']:.1f}" in row


def test_wilson_interval() -> None:
    # The textbook example: 10 of 100.
    low, high = wilson(10, 100)
    assert (round(low, 4), round(high, 4)) == (0.0552, 0.1744)
    assert wilson(0, 0) == (0.0, 1.0)
