"""What response headers say, in every spelling that providers use."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gristmill.llm.limits.quota import Quota, read_duration, read_quota, read_time, read_wait

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1), ("6m0s", 360), ("1m30.5s", 90.5), ("6ms", 0.006), ("120ms", 0.12), ("8.64s", 8.64),
        ("17h3m", 61380), ("1d2h", 93600), ("250us", 0.00025), ("0s", 0), ("7m12s", 432),
    ],
)  # fmt: skip
def test_durations_as_providers_write_them(text: str, seconds: float) -> None:
    assert read_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "1", "s", "1x", "-1s", "1s ", "1s2", "soon", "1.s", "1m 2s", "1,5s"])
def test_what_is_no_duration_is_not_guessed(text: str) -> None:
    assert read_duration(text) is None


@given(
    st.integers(0, 400), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999),
    st.booleans(),
)  # fmt: skip
def test_every_duration_is_read_as_it_was_meant(days: int, h: int, m: int, s: int, ms: int, joined: bool) -> None:
    """Whole milliseconds of the last second, joined to it ("1.5s") or apart ("1s500ms")."""
    last = f"{s}.{ms:03d}s" if joined else f"{s}s{ms}ms"
    text = f"{days}d{h}h{m}m{last}" if days else f"{h}h{m}m{last}" if h else f"{m}m{last}" if m else last
    meant = ((days * 24 + (h if days or h else 0)) * 60 + m) * 60 + s + ms / 1000
    assert read_duration(text) == pytest.approx(meant)
    assert read_time(text) == pytest.approx(meant)


@given(st.text(max_size=30))
def test_no_text_breaks_the_reader(text: str) -> None:
    seconds = read_time(text)
    assert seconds is None or seconds >= 0


def test_moments_are_seconds_from_now() -> None:
    now = NOW.timestamp()
    assert read_time("2026-03-01T12:00:30Z", now=now) == pytest.approx(30)
    assert read_time("2026-03-01T13:00:30.5+01:00", now=now) == pytest.approx(30.5)
    assert read_time(format_datetime(NOW.replace(minute=2), usegmt=True), now=now) == pytest.approx(120)
    assert read_time(str(int(now) + 7), now=now) == pytest.approx(7)
    assert read_time(str((int(now) + 7) * 1000), now=now) == pytest.approx(7)
    assert read_time("2026-03-01T11:00:00Z", now=now) == 0  # past


def test_openai_headers() -> None:
    headers = CIMultiDict(
        {
            "X-RateLimit-Limit-Requests": "60", "x-ratelimit-limit-tokens": "150000",
            "x-ratelimit-remaining-requests": "59", "x-ratelimit-remaining-tokens": "149984",
            "x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s",
        }
    )  # fmt: skip
    assert read_quota(headers) == Quota(60, 59, 1.0, 150000, 149984, 360.0)


def test_anthropic_headers_name_the_scarcest_tokens() -> None:
    soon = datetime.now(UTC).replace(microsecond=0)
    headers = {
        "anthropic-ratelimit-requests-limit": "50", "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": soon.isoformat().replace("+00:00", "Z"),
        "anthropic-ratelimit-input-tokens-limit": "1000", "anthropic-ratelimit-input-tokens-remaining": "900",
        "anthropic-ratelimit-output-tokens-limit": "100", "anthropic-ratelimit-output-tokens-remaining": "10",
        "anthropic-ratelimit-tokens-limit": "1100", "anthropic-ratelimit-tokens-remaining": "910",
    }  # fmt: skip
    quota = read_quota(headers)
    assert quota is not None
    assert (quota.requests_limit, quota.requests_left, quota.tokens_limit, quota.tokens_left) == (50, 49, 100, 10)
    assert quota.requests_reset is not None and 0 <= quota.requests_reset <= 1


def test_headers_that_say_nothing_or_nonsense() -> None:
    assert read_quota({"content-type": "application/json"}) is None
    assert read_quota({"x-ratelimit-remaining-requests": "many"}) == Quota()
    assert read_wait({}) is None
    assert read_wait({"retry-after": "later"}) is None
    assert read_wait({"retry-after": "nan"}) is None


def test_waits() -> None:
    assert read_wait({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    assert read_wait({"retry-after": "20"}) == 20
    assert read_wait({"retry-after": "-3"}) == 0
    assert read_wait({"retry-after": format_datetime(datetime.now(UTC), usegmt=True)}) == pytest.approx(0, abs=2)
    spent = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m30s"}
    assert read_wait(spent) == 90
    assert read_wait({**spent, "x-ratelimit-remaining-requests": "3"}) is None
