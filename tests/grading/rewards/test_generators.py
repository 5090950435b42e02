"""Every generator of reasoning-gym: what its own verifier takes we take, over JSON and in any dress; garbage earns nothing."""

import json
import subprocess
import sys

import pytest
from k2think.grading.rewards.procedural import close_gym_pool
from k2think.grading.score import score_sync

MADE = """
import json, sys, warnings
warnings.simplefilter("ignore")
from k2think.grading.rewards import gym
gym.leave_out_plots()
import reasoning_gym
problems = {}
for name in gym.generators():
    if name != "composite":  # is made of others
        made = reasoning_gym.create_dataset(name, size=2, seed=11)
        problems[name] = [made[0], made[1]]
print("\\n" + json.dumps(problems))  # some generators print, too
"""


@pytest.mark.timeout(900)
def test_every_generator_is_scored_as_its_own_verifier_does() -> None:
    made = subprocess.run([sys.executable, "-c", MADE], capture_output=True, text=True, check=True)
    problems = {
        (name, place): entry
        for name, entries in json.loads(made.stdout.splitlines()[-1]).items()
        for place, entry in enumerate(entries)
        if isinstance(entry["answer"], str)
    }
    assert len({name for name, _ in problems}) >= 100
    off: list[str] = []
    for (name, place), entry in problems.items():
        answer = entry["answer"]
        for text, right in (
            (f"<think>{answer}</think><answer>{answer}</answer>", True),
            (f"<answer>\n```\n{answer}\n```\n</answer>", True),
            ("<answer>zq is no answer</answer>", False),
        ):
            scored = score_sync(f"reasoning_gym:{name}", text, answer, {"entry": entry})
            if scored.correct != right or (not right and scored.value):
                off.append(f"{name} {place}: {text!r}: {scored}")
    close_gym_pool()
    assert not off
