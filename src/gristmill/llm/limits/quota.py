"""What response headers say about rates: how much is left until when, and how long a refused request should wait.

Spellings: OpenAI and those who copy it (`x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, resets as durations
like "6m0s"; https://platform.openai.com/docs/guides/rate-limits), Anthropic (`anthropic-ratelimit-{requests,tokens,
input-tokens,output-tokens}-{limit,remaining,reset}`, resets as RFC 3339 times;
https://docs.anthropic.com/en/api/rate-limits), and for waits Retry-After (seconds or an HTTP date, RFC 9110 10.2.3)
and retry-after-ms. What cannot be read is left out, never guessed.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

Names = tuple[str, str, str]
"""Headers that say a limit, what is left of it, and when it is whole again."""

OPENAI: tuple[Names, Names] = (
    ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
)
ANTHROPIC: tuple[Names, ...] = tuple(
    (f"anthropic-ratelimit-{kind}-limit", f"anthropic-ratelimit-{kind}-remaining", f"anthropic-ratelimit-{kind}-reset")
    for kind in ("requests", "tokens", "input-tokens", "output-tokens")
)

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|d|h|m|s)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")

AN_EPOCH = 1e9  # seconds; a larger bare number is a time, not a duration of thirty years
AN_EPOCH_MS = 1e12


@dataclass(frozen=True, slots=True)
class Quota:
    """What a provider says is left. Resets are seconds from now until the limit is whole again."""

    requests_limit: int | None = None
    requests_left: int | None = None
    requests_reset: float | None = None
    tokens_limit: int | None = None
    tokens_left: int | None = None
    tokens_reset: float | None = None


def read_quota(headers: Mapping[str, str]) -> Quota | None:
    """The quota in a response's headers (looked up without regard to case by the mapping); None if they say nothing."""
    requests, tokens = OPENAI
    if requests[1] in headers or tokens[1] in headers:
        return Quota(*_triple(headers, requests), *_triple(headers, tokens))
    requests, *kinds = ANTHROPIC
    if requests[1] in headers or kinds[0][1] in headers:
        return Quota(*_triple(headers, requests), *min((_triple(headers, kind) for kind in kinds), key=_share_left))
    return None


def read_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that a refused request should wait; None where the provider does not say."""
    millis = _number(headers.get("retry-after-ms"))
    if millis is not None:
        return max(0.0, millis / 1000)
    named = headers.get("retry-after")
    if named is not None:
        return read_time(named)
    quota = read_quota(headers)
    if quota is None:
        return None
    spent = [
        reset
        for left, reset in ((quota.requests_left, quota.requests_reset), (quota.tokens_left, quota.tokens_reset))
        if left == 0 and reset is not None
    ]
    return max(spent, default=None)


def read_time(text: str, *, now: float | None = None) -> float | None:
    """Seconds from now (seconds since the epoch) in any spelling: a bare number of seconds, a duration, an epoch in
    seconds or milliseconds, an RFC 3339 time, an HTTP date. Never negative; None if it is none of these."""
    text = text.strip()
    seconds = _number(text)
    if seconds is not None and abs(seconds) < AN_EPOCH:
        return max(0.0, seconds)
    if seconds is None:
        seconds = read_duration(text)
        if seconds is not None:
            return seconds
        seconds = _date(text)
    elif seconds >= AN_EPOCH_MS:
        seconds /= 1000
    return None if seconds is None else max(0.0, seconds - (time.time() if now is None else now))


def read_duration(text: str) -> float | None:
    """Seconds of a duration as Go writes it ("1m30.5s", "6ms", "17h3m"); None if it is not one."""
    if _DURATION.fullmatch(text) is None:
        return None
    return sum(float(count) * _UNITS[unit] for count, unit in _PART.findall(text))


def _triple(headers: Mapping[str, str], names: Names) -> tuple[int | None, int | None, float | None]:
    limit, left, reset = names
    told = headers.get(reset)
    return _count(headers.get(limit)), _count(headers.get(left)), read_time(told) if told is not None else None


def _share_left(triple: tuple[int | None, int | None, float | None]) -> float:
    limit, left, _ = triple
    return math.inf if left is None else left / max(1, limit or 1)


def _count(text: str | None) -> int | None:
    number = _number(text)
    return None if number is None else max(0, int(number))


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _date(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text) if text[:1].isdigit() else parsedate_to_datetime(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
