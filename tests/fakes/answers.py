"""What the fake models say: a pure function of seed and request, made of the prompt's own words."""

from __future__ import annotations

import hashlib
import json
import random
import re
from typing import Any

_WORD = re.compile(r"[^\W_]+", re.UNICODE)
_SMALL = re.compile(r"sentence|number|index|count|score", re.IGNORECASE)


def words_of(prompt: str) -> list[str]:
    return _WORD.findall(prompt)[-200:] or ["nothing"]


def tokens_of(text: str) -> int:
    return len(text.encode()) // 4 + 1


def sentence(words: list[str], rng: random.Random) -> str:
    line = " ".join(rng.sample(words, min(len(words), rng.randint(4, 9))))
    return f"{line[0].upper()}{line[1:]}."


def value_of(schema: dict[str, Any], words: list[str], rng: random.Random) -> str:
    """The JSON of a value that conforms to a schema."""
    return json.dumps(fill(schema, words, rng, ""), ensure_ascii=False)


def fill(schema: dict[str, Any], words: list[str], rng: random.Random, name: str) -> Any:
    """A value that conforms to a schema, made of the prompt's own words."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return rng.choice(schema["enum"])
    for union in ("anyOf", "oneOf", "allOf"):
        if union in schema:
            return fill(schema[union][0], words, rng, name)
    kind = schema.get("type")
    if kind == "object":
        return {key: fill(value, words, rng, key) for key, value in schema.get("properties", {}).items()}
    if kind == "array":
        return _array(schema, words, rng, name)
    if kind == "string":
        return _string(schema, words, rng)
    if kind == "integer":
        low = _bound(schema, "minimum", "exclusiveMinimum", 1, 1)
        high = _bound(schema, "maximum", "exclusiveMaximum", -1, low + (2 if _SMALL.search(name) else 9))
        return rng.randint(low, min(high, low + 2) if _SMALL.search(name) else high)
    if kind == "number":
        low, high = schema.get("minimum", 0), schema.get("maximum", 1)
        return round(rng.uniform(low, high), 3)
    if kind == "boolean":
        return rng.random() < 0.5
    return None


def _bound(schema: dict[str, Any], name: str, exclusive: str, step: int, default: int) -> int:
    if exclusive in schema:
        return int(schema[exclusive]) + step
    return int(schema.get(name, default))


def _array(schema: dict[str, Any], words: list[str], rng: random.Random, name: str) -> list[Any]:
    if "prefixItems" in schema:
        return [fill(item, words, rng, name) for item in schema["prefixItems"]]
    low = schema.get("minItems", 1)
    count = rng.randint(low, min(schema.get("maxItems", 3), low + 3))
    items = [fill(schema["items"], words, rng, name) for _ in range(count)]
    if schema.get("uniqueItems"):
        items = [item for n, item in enumerate(items) if item not in items[:n]]
    return items


def _string(schema: dict[str, Any], words: list[str], rng: random.Random) -> str:
    low, high = schema.get("minLength", 1), schema.get("maxLength", 120)
    start = rng.randrange(len(words))
    text = " ".join((words * 2)[start : start + rng.randint(4, 10)])
    text = text if len(text) < high else text[:high].rpartition(" ")[0] or words[0][:high]  # whole words: it is done
    while len(text) < low:
        text += f" {rng.choice(words)}"
    return text[:high]


def shown_schema(messages: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The schema that stands in the last message, for models that are told it in words."""
    _, marker, shown = (messages or [{}])[-1].get("content", "").rpartition("by this JSON Schema:\n")
    return json.loads(shown) if marker else None


def vector(text: str) -> list[float]:
    """A bag of hashed words: texts that share words lie near each other."""
    found = [0.0] * 32
    for word in _WORD.findall(text.lower()):
        found[int(hashlib.sha256(word.encode()).hexdigest()[:8], 16) % 32] += 1.0
    length = sum(x * x for x in found) ** 0.5 or 1.0
    return [x / length for x in found]


class Said:
    """A model's answer before it takes the form of a protocol."""

    def __init__(self, options: Any, *, prompt: str, key: str, schema: dict[str, Any] | None, turns: int, limit: int):
        rng = random.Random(f"{options.seed}:{key}")
        words = words_of(prompt)
        unlucky = random.Random(f"{options.seed}:bad:{key}").random()
        patient = turns <= options.bad_until_turns
        if 1 - unlucky < options.pinvalid and patient:
            text = "I would rather not." if schema is None else '{"wrong": true}'
        elif schema is None or options.ignores_json:
            text = sentence(words, rng)
        else:
            text = value_of(schema, words, rng)
        self.length = unlucky < options.plength and patient
        if self.length:
            text = text[: len(text) // 2]
        if options.max_tokens_bind and len(text.split()) > limit:
            text, self.length = " ".join(text.split()[:limit]), True
        self.filtered = bool(options.filter) and options.filter in prompt
        self.refused = bool(options.deny) and options.deny in prompt
        self.empty = bool(options.mute) and options.mute in prompt
        self.text = "" if self.empty else text
        self.thoughts = f"They ask about {words[-1]}." if options.think else ""
        self.tokens_in = tokens_of(prompt)
        self.thought_tokens = tokens_of(self.thoughts) if self.thoughts else 0
        self.tokens_out = min(tokens_of(self.text), limit) + self.thought_tokens
        self.cached = int(self.tokens_in * options.cached)
