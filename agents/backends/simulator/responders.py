"""Default behaviour of the simulated server when it runs as a command: it solves, plans and judges, more or less well."""

import json
import random
import re
from collections.abc import Mapping
from typing import Any, cast

from .replies import ChatRequest, ReasoningField, Reply

STEPS_SENTENCE = "Take the quantities one by one and check the last step."
_PLAN_PROMPT = re.compile(r"\bplan\b.{0,400}?\b(without|not|never)\b.{0,200}?\banswer", re.IGNORECASE | re.DOTALL)
_DEPTH_MAX = 12


def detect_role(request: ChatRequest) -> str:
    """Guess which agent asks: `judge`, `planner` or `generator`.

    A schema with an enum asks for a judgement; any other schema, or words that ask for a plan without the answer, ask for a
    plan. Give the server a `role_of` of your own where the prompts are known better.
    """
    if request.json_schema is not None:
        return "judge" if _has_enum(request.json_schema) else "planner"
    return "planner" if _PLAN_PROMPT.search(request.text) else "generator"


class SolvingResponder:
    """Right with a fixed probability; the same request and seed always get the same reply."""

    def __init__(
        self,
        *,
        truth: str = "405",
        accuracy: float = 0.8,
        seed: int = 0,
        reasoning_tokens: int = 40,
        reasoning_field: ReasoningField = ReasoningField.inline,
    ) -> None:
        """`truth` is answered with probability `accuracy`, else something else; `reasoning_tokens` is about that many."""
        self._truth = truth
        self._accuracy = accuracy
        self._seed = seed
        self._words = max(1, reasoning_tokens // 2)
        self._field = reasoning_field
        self._unseeded = 0

    def __call__(self, request: ChatRequest) -> Reply:
        if request.seed is None:
            self._unseeded += 1
        chance = random.Random(f"{self._seed}/{request.seed}/{self._unseeded}/{request.text}")
        role = detect_role(request)
        if request.json_schema is not None:
            return Reply(text=json.dumps(fill_schema(request.json_schema, chance)))
        if role == "planner":
            return Reply(text=f"1. Write down what is given. 2. {STEPS_SENTENCE}")
        right = chance.random() < self._accuracy
        answer = self._truth if right else self._wrong(chance)
        thought = " ".join(chance.choice(("so", "then", "add", "carry", "check", "next")) for _ in range(self._words))
        return Reply(text=f"<answer>{answer}</answer>", reasoning=thought, reasoning_field=self._field)

    def _wrong(self, chance: random.Random) -> str:
        if re.fullmatch(r"-?\d+", self._truth):
            return str(int(self._truth) + chance.choice((-10, -1, 1, 10)))
        return f"not {self._truth}"


def fill_schema(schema: Mapping[str, Any], chance: random.Random) -> Any:
    """Return a value that satisfies the usual JSON schemas: required and optional properties all filled, an enum's value
    drawn by `chance`, texts made of one sentence, numbers at their minimum or 1.
    """
    return _fill(schema, chance, definitions=schema.get("$defs", {}), depth=0)


def _fill(schema: Mapping[str, Any], chance: random.Random, *, definitions: Mapping[str, Any], depth: int) -> Any:
    if depth > _DEPTH_MAX:
        return None

    def fill(part: Mapping[str, Any]) -> Any:
        return _fill(part, chance, definitions=definitions, depth=depth + 1)

    if "$ref" in schema:
        return fill(definitions[str(schema["$ref"]).rpartition("/")[2]])
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return fill(schema[key][0])
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return chance.choice(schema["enum"])
    kind = schema.get("type", "object" if "properties" in schema else "string")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            properties = cast(dict[str, Mapping[str, Any]], schema.get("properties", {}))
            return {name: fill(part) for name, part in properties.items()}
        case "array":
            count = max(1, schema.get("minItems", 1))
            return [fill(schema.get("items", {})) for _ in range(count)]
        case "boolean":
            return True
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "null":
            return None
        case _:
            return STEPS_SENTENCE[: schema.get("maxLength", len(STEPS_SENTENCE))].ljust(schema.get("minLength", 0), ".")


def _has_enum(schema: Any) -> bool:
    if isinstance(schema, Mapping):
        fields = cast(Mapping[str, Any], schema)
        return bool(fields.get("enum")) or any(_has_enum(value) for value in fields.values())
    return isinstance(schema, list) and any(_has_enum(value) for value in cast(list[Any], schema))
