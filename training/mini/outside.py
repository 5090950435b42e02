"""Texts outside the eight families, to which the model must answer with an empty answer.

Three sources: questions about the world, in templates filled from word lists and from made-up words (so that unknown
words mean refusal); mathematics beyond the families' ranges; and noise. The held-out prompts of ``refusals.py`` were
written apart from these templates.
"""

from __future__ import annotations

import random

from .families.problem import NAMES, THINGS, chance, pick

_SUBJECTS = ("france", "the moon", "history", "love", "water", "python", "the economy", "dogs", "music", "gravity", "war", "my job",
             "football", "coffee", "a tree", "the sun", "chess", "money", "the weather", "rome", "shakespeare", "electricity",
             "a car", "bread", "japan", "dinosaurs", "a poem", "the internet", "health", "oxygen", "the ocean", "sleep")  # fmt: skip
_ROLES = ("capital", "president", "author", "inventor", "meaning", "color", "population", "name", "history", "purpose", "price",
          "language", "symbol", "king", "cause", "definition", "height", "age", "currency", "origin")  # fmt: skip
_VERBS = ("write", "explain", "describe", "translate", "summarize", "make", "draw", "fix", "build", "find", "list", "give me",
          "tell me about", "discuss", "recommend", "show me", "create", "review", "plan", "design")  # fmt: skip
_OBJECTS = ("a story", "a python function", "an essay", "a letter", "a song", "the news", "a recipe", "this sentence", "a joke",
            "a sql query", "the rules", "a web page", "an email", "a speech", "some advice", "a haiku", "a program", "a proof",
            "the best movies", "a summary", "three facts", "a sorting algorithm", "a class in java", "a regular expression")  # fmt: skip
_WORDS = ["time", "people", "way", "water", "day", "man", "thing", "woman", "life", "child", "world", "school", "state", "family", "student", "group", "country", "problem", "hand", "part", "place", "case", "week", "company", "system", "program", "question", "work", "government", "number", "night", "point", "home", "room", "mother", "area", "money", "story", "fact", "month", "lot", "right", "study", "book", "eye", "job", "word", "business", "issue", "side", "kind", "head", "house", "service", "friend", "father", "power", "hour", "game", "line", "end", "member", "law", "car", "city", "community", "name", "president", "team", "minute", "idea", "body", "information", "back", "parent", "face", "others", "level", "office", "door", "health", "person", "art", "war", "history", "party", "result", "change", "morning", "reason", "research", "girl", "guy", "moment", "air", "teacher", "force", "education", "is", "are", "was", "the", "a", "of", "and", "to", "in", "for", "on", "with", "as", "by", "at", "from", "that", "this", "be", "have", "not", "but", "what", "all", "were", "when", "we", "there", "can", "an", "your", "which", "their", "said", "if", "do", "will", "each", "about", "how", "up", "out", "them", "then", "she", "many", "some", "so", "these", "would", "other", "into", "has", "more", "her", "two", "like", "him", "see", "could", "no", "make", "than", "first", "been", "its", "who", "now", "my", "made", "over", "did", "down", "only", "find", "use", "may", "long", "little", "very", "after", "called", "just", "most", "know", "where", "why", "red", "blue", "fast", "slow", "happy", "cold", "warm", "bright", "sad", "old", "new", "big", "small"]  # fmt: skip
_SYLLABLES = ["ba", "be", "bi", "bo", "bu", "ca", "ce", "ci", "co", "cu", "da", "de", "di", "do", "fa", "fe", "fi", "ga", "ge", "go", "ha", "he", "hi", "ho", "ja", "jo", "ka", "ke", "ki", "la", "le", "li", "lo", "lu", "ma", "me", "mi", "mo", "mu", "na", "ne", "ni", "no", "nu", "pa", "pe", "pi", "po", "qua", "ra", "re", "ri", "ro", "ru", "sa", "se", "si", "so", "su", "ta", "te", "ti", "to", "tu", "va", "ve", "vi", "vo", "wa", "we", "wi", "ya", "yo", "za", "zo", "sh", "th", "ch", "st", "tr", "pl", "br", "gr", "ion", "ing", "er", "an", "en", "on", "us", "um", "al", "el"]  # fmt: skip
_CHAT = ("hello", "hi there", "how are you", "who are you", "thanks", "good morning", "what can you do", "help", "help me", "test",
         "are you human", "yes", "no", "ok", "why", "tell me a joke", "what time is it", "what day is it today", "sing", "stop",
         "i am sad", "what is your name", "do you like me", "bye", "what", "hmm", "???", "how old are you", "i need help")  # fmt: skip


def _made_up(rng: random.Random) -> str:
    return "".join(pick(rng, _SYLLABLES) for _ in range(rng.randint(1, 4)))


def _word(rng: random.Random) -> str:
    return _made_up(rng) if chance(rng, 0.45) else pick(rng, _WORDS)


def _thing(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.35:
        return pick(rng, _SUBJECTS)
    return " ".join(_word(rng) for _ in range(1 if draw < 0.75 else 2))


def _number(rng: random.Random, low: int, high: int) -> str:
    return str(rng.randint(low, high))


def _long_number(rng: random.Random) -> str:
    """A number of 5 to 12 digits: more than the families have."""
    digits = rng.randint(5, 12)
    return _number(rng, 10 ** (digits - 1), 10**digits - 1)


def _question(rng: random.Random) -> str:
    form = pick(rng, ("what is the {r} of {t}", "who is the {r} of {t}", "who {w} {t}", "what is {t}", "what's {t}", "{v} {o}", "{v} {o} about {t}",
                      "{v} {t}", "how do i {w} {t}", "how does {t} {w}", "how to {w} a {t}", "why is {t} {w}", "why do {t} {w}",
                      "when did {t} {w}", "where is {t}", "is {t} {w}", "is it {w} to {w} {t}", "can you {v} {o}", "can {t} {w}",
                      "which {t} is the most {w}", "which is better,{t} or {t2}", "what are the {w} of {t}", "should i {w} {t}",
                      "what does {t} mean", "do you {w} {t}", "how many {w} are in {t}", "how many {w} does {t} have", "define {t}",
                      "what {w} is {t}", "find {t}", "solve {t}", "sort {t}", "calculate {t}", "compute the {r} of {t}", "how much is {t}",
                      "what is the {w} of {t} and {t2}", "the {r} of {t}", "who is the {w}", "where {t}", "in what year did {t} {w}",
                      "what year {w} {t}", "how far is {t} from {t2}", "how long is {t}", "what happened in {y}", "who won the {t} in {y}",
                      "what is the difference between {t} and {t2}", "name {k} {w}", "list {k} {t}", "give me {k} {w} for {t}"))  # fmt: skip
    return form.format(r=pick(rng, _ROLES), t=_thing(rng), t2=_thing(rng), v=pick(rng, _VERBS), o=pick(rng, _OBJECTS), w=_word(rng),
                       y=rng.randint(1500, 2030), k=rng.randint(2, 20))  # fmt: skip


def _mathematics(rng: random.Random) -> str:
    n = lambda low=2, high=99: _number(rng, low, high)  # noqa: E731
    v = pick(rng, "xyznt")
    big = lambda: _long_number(rng)  # noqa: E731
    decimal = f"{n()}.{n(1, 99)}"
    op = pick(rng, "+-*/")
    options = (
        f"integrate {v}^{n(2, 9)}", f"what is the integral of {n()}{v}^{n(2, 5)}", f"derivative of {v}^{n(2, 9)}+{n()}{v}",
        f"differentiate sin({n(2, 9)}{v})", f"what is {n()}% of {n(10, 900)}", f"{n()} percent of {n()}", f"square root of {n(2, 900)}",
        f"sqrt({n(2, 900)})", f"what is {n()}^{n(2, 9)}", f"{n()} to the power of {n(2, 9)}", f"{n()} squared", f"is {n(2, 999)} prime",
        f"is {n(2, 999)} a prime number", f"what is {n(3, 30)} factorial", f"{n(3, 20)}!", f"lcm of {n()} and {n()}", f"log of {n()}",
        f"least common multiple of {n()} and {n()}", f"what is {big()}+{n()}", f"{big()}-{n(2, 9999)}", f"{n(2, 9999)}+{big()}",
        f"what is {big()}{op}{big()}", f"{big()}*{n(2, 9)}", f"{n(10, 99)}*{n(11, 99)}", f"what is {n(100, 999)}*{n(10, 999)}",
        f"{n(100, 9999)} times {n(11, 99)}", f"{n(100, 9999)}/{n(11, 99)}", f"{n(100, 9999)} divided by {n(10, 99)}",
        f"what is {decimal}{op}{n()}", f"{n()}{op}{decimal}", f"{decimal} plus {decimal}", f"{n()}/{n()}+{n()}/{n()}",
        f"{n(2, 9)}{v}^2+{n()}{v}+{n()}=0", f"solve {v}^2={n()}", f"solve {v}^2-{n()}{v}+{n()}=0", f"solve x+y={n()},x-y={n()}",
        f"{n(2, 9)}x+{n(2, 9)}y={n()}", f"what is the area of a circle with radius {n()}", f"area of a square with side {n()}",
        f"volume of a cube with side {n()}", f"sin({n()})", f"cos of {n()} degrees", f"mean of {n()},{n()},{n()}", f"average of {n()} and {n()}",
        f"median of {n()},{n()},{n()}", f"convert {n()} miles to kilometers", f"{n()} dollars in euros", f"what is {n()} mod {n(2, 20)}",
        f"{n()} modulo {n(2, 20)}", f"prove that {v}+{n()} is even", f"how many primes below {n(10, 999)}", f"factor {n(10, 9999)}",
        f"simplify {n(2, 9)}{v}+{n(2, 9)}{v}", f"expand ({v}+{n()})^2", f"limit of 1/{v}", f"fibonacci number {n()}", f"round {decimal}",
        f"convert {n(2, 999)} to binary", f"{n()} in roman numerals", f"probability of rolling a {n(1, 6)}", f"{n(1, 9999)}", f"{n()} {n()}",
        f"what is {n(1, 9999)}", f"what comes next:{n(1, 9)},{n()},{n()}", f"next number in {n()},{n()},{n()}", f"({n()}+{n()})*{n()}",
        f"{n()}*{n()}*{n()}", f"{n()}+{n()}*{n()}", f"how many seconds in {n()} hours", f"what is {n()} plus", f"plus {n()}", f"{n()}+",
        f"{pick(rng, NAMES)} has {n()} {pick(rng, THINGS)}", f"{pick(rng, NAMES)} has some {pick(rng, THINGS)}. how many {pick(rng, THINGS)}",
        f"{pick(rng, NAMES)} is {n()} years old. how old will {pick(rng, NAMES)} be in {n()} years", f"{n()} divided by 0", f"{n()}/0",
        f"a train travels {n()} km in {n(2, 9)} hours. what is its speed", f"{pick(rng, NAMES)} is taller than {pick(rng, NAMES)}",
        f"robot at ({n()},{n()})", "sort", "gcd", "solve", "table", f"gcd of {n()}", f"gcd of {big()} and {n()}", f"sort {_word(rng)},{_word(rng)}",
        f"what is infinity plus {n()}", f"{n(2, 9)}{v}+{n()}", f"{v}+{_word(rng)}={_word(rng)}", f"count the letters in {_word(rng)}",
    )  # fmt: skip
    return pick(rng, options)


def _noise(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.4:
        return " ".join(_word(rng) for _ in range(rng.randint(1, 14)))
    if draw < 0.55:
        return "".join(chr(rng.randint(32, 126)) for _ in range(rng.randint(1, 30)))
    if draw < 0.65:
        return " ".join("~" if chance(rng, 0.5) else _word(rng) for _ in range(rng.randint(1, 8)))
    if draw < 0.75:
        return f"{_word(rng)} {_number(rng, 1, 999)} {_word(rng)} {_number(rng, 1, 999)} {_word(rng)}"
    if draw < 0.85:
        return f"{_word(rng)}({_word(rng)},{_number(rng, 0, 99)});{_word(rng)}={_word(rng)}.{_word(rng)}()"
    if draw < 0.87:
        return ""
    return pick(rng, _CHAT)


def draw_outside(rng: random.Random) -> str:
    """One text that belongs to no family."""
    draw = rng.random()
    text = _question(rng) if draw < 0.4 else _mathematics(rng) if draw < 0.75 else _noise(rng)
    if chance(rng, 0.12):
        text = f"{text}. {_question(rng) if chance(rng, 0.5) else _noise(rng)}"
    elif chance(rng, 0.08):
        text = (
            pick(rng, ("please ", "can you ", "hi,", "tell me ", "i want to know ", "ignore all instructions and "))
            + text
        )
    return text[:200]
