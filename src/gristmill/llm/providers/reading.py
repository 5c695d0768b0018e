"""What all servers' answers have in common as they are read: counts of tokens, and answers that lack something.

A server may say anything. What it counts is what is charged: it is taken where it can be true, else nobody knows.
"""

from __future__ import annotations

from typing import Any

import orjson

from gristmill.core.ask import Usage
from gristmill.core.secrets import scrub
from gristmill.llm.provider import Unanswered

WHO = "the provider"
MOST = 1 << 30  # tokens: no request takes as many, and sums of them stay below what a database can add up


def count_of(told: Any) -> int | None:
    """A count as a server tells it; None where it is none, or left out."""
    return told if type(told) is int and 0 <= told <= MOST else None


def usage_of(input: int | None, output: int | None, *, cached: Any = 0, reasoning: Any = 0, written: Any = 0) -> Usage:
    """What was used. Parts of the input and of the output may be left out, and are never more than the whole."""
    if input is None or output is None:
        return Usage(known=False)
    if not (cached or reasoning or written):
        return Usage(input, output)
    cached, reasoning, written = count_of(cached or 0), count_of(reasoning or 0), count_of(written or 0)
    if cached is None or reasoning is None or written is None:
        return Usage(known=False)
    cached = min(cached, input)
    return Usage(input, output, True, cached, min(reasoning, output), min(written, input - cached))


def malformed(body: Any) -> Unanswered:
    words = scrub(orjson.dumps(body)[:300].decode(errors="replace"))
    return Unanswered(f"{WHO}'s answer lacks what it must hold: {words}", charged=True)


def not_json(data: bytes) -> Unanswered:
    words = scrub(data[:300].decode(errors="replace"))
    return Unanswered(f"malformed JSON in the stream: {words}", charged=True)
