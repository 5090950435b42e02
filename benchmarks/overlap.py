"""What searching for problems in training data costs: python -m benchmarks.overlap [--problems N] [--texts N]

Made-up texts of Zipf-distributed words, so that common words are as common as in English. Prints JSON: seconds of CPU and
bytes of memory for the index, texts a second for three lengths of text, and whether all planted problems were found.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import random
import time
import tracemalloc
from collections.abc import Iterator

from k2think.grading.overlap import OverlapIndex, text_key

WORDS = 50_000
PROBLEM_WORDS = 80
PLANTED_EVERY = 1_000
"""One text in so many holds a problem."""


def made(chance: random.Random, vocabulary: list[str], weights: list[float], words: int) -> str:
    """Return a text of this length, give or take a third."""
    count = chance.randint(words * 2 // 3, words * 4 // 3)
    return " ".join(chance.choices(vocabulary, cum_weights=weights, k=count))


def texts(count: int, words: int, problems: list[str], seed: int) -> Iterator[tuple[str, int | None]]:
    """Yield texts, and of those that hold a problem its number."""
    chance = random.Random(seed)
    vocabulary, weights = words_of_english()
    for number in range(count):
        text = made(chance, vocabulary, weights, words)
        if number % PLANTED_EVERY == 0:
            planted = chance.randrange(len(problems))
            yield f"{text} {problems[planted]} {text}", planted
        else:
            yield text, None


def words_of_english() -> tuple[list[str], list[float]]:
    """Return made-up words with cumulated weights: the n-th is 1/n as frequent as the first."""
    return [f"w{n}" for n in range(WORDS)], list(itertools.accumulate(1 / (n + 1) for n in range(WORDS)))


def streamed(index: OverlapIndex, problems: list[str], count: int, words: int) -> dict[str, float | int]:
    """Stream texts past the index; return what it took and what was found."""
    missed = wrong = 0
    spent = 0.0
    for text, planted in texts(count, words, problems, seed=words):
        before = time.process_time()
        found = {match.item for match in index.search(text)}
        spent += time.process_time() - before
        missed += planted is not None and str(planted) not in found
        wrong += bool(found - {str(planted)})
    return {
        "texts": count,
        "words_each": words,
        "cpu_s": round(spent, 2),
        "texts_per_cpu_s": round(count / spent),
        "words_per_cpu_s": round(count * words / spent),
        "planted_missed": missed,
        "texts_with_something_not_planted": wrong,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=10_000, help="Problems in the index.")
    parser.add_argument(
        "--texts", type=int, default=100_000, help="Texts of the shortest length; longer ones are fewer."
    )
    asked = parser.parse_args()
    chance = random.Random(0)
    vocabulary, weights = words_of_english()
    problems = [made(chance, vocabulary, weights, PROBLEM_WORDS) for _ in range(asked.problems)]

    tracemalloc.start()
    kept = OverlapIndex((str(number), problem) for number, problem in enumerate(problems))
    index_bytes, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    before = time.process_time()
    index = OverlapIndex((str(number), problem) for number, problem in enumerate(problems))
    built_s = time.process_time() - before
    del kept

    before = time.process_time()
    for problem in problems:
        text_key(problem)
    key_s = time.process_time() - before
    lengths = ((PROBLEM_WORDS, asked.texts), (1_000, asked.texts // 20), (10_000, asked.texts // 200))
    print(
        json.dumps(
            {
                "machine": f"{platform.machine()}, Python {platform.python_version()}, one core",
                "index": {
                    "problems": len(index),
                    "words": index.words,
                    "cpu_s": round(built_s, 2),
                    "megabytes": round(index_bytes / 1e6, 1),
                    "bytes_per_word": round(index_bytes / index.words),
                },
                "keys_per_cpu_s": round(len(problems) / key_s),
                "stream": [streamed(index, problems, count, words) for words, count in lengths],
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
