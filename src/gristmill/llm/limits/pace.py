"""When the next request may be sent: so many requests and tokens a minute, as configured or as the provider says.

Evenly spaced (the generic cell rate algorithm, ITU-T I.371), with no bucket that could be emptied at once: providers
enforce a minute's limit by the second, a process that starts anew has no burst to repeat, and shares of several
processes add up.
"""

from __future__ import annotations

import math

from gristmill.llm.limits.quota import Quota

MINUTE = 60.0
SLACK = 0.1  # seconds a late request may catch up; the spacing is wider by as much: no minute ever holds one too many
SHORT = 120.0  # seconds; a limit that takes longer to come back (a day's) is used up, not spread
SCARCE, HALF = 0.2, 0.5  # part of a limit that is left when spacing begins; more where more is in flight
SMOOTHING = 0.1


class Pace:
    """One line's rates. Nothing may be sent before `due` (-inf where nothing limits it)."""

    def __init__(self, rpm: int | None, tpm: int | None) -> None:
        self.due = -math.inf
        self.why = ""
        self._rpm, self._tpm = rpm, tpm
        self._share = 1.0  # never 0
        self._sent = self._request_due = self._token_due = self._told_due = -math.inf
        self._told_gap, self._told_until, self._told_why = 0.0, -math.inf, ""
        self._held = self._asked_held = 0.0  # tokens of requests in flight, as counted and as asked
        self._asked = self._used = 0.0  # tokens of one request, smoothed

    @property
    def limits(self) -> bool:
        """Whether there is anything to keep to."""
        return bool(self._rpm or self._tpm or self._told_gap)

    def take(self, now: float, tokens: int) -> None:
        """A request of at most so many tokens is sent now."""
        self._sent = now
        if self._rpm:
            self._request_due = max(self._request_due, now - SLACK) + self._gap(self._rpm)
        if self._tpm:
            counted = tokens * (self._used / self._asked if self._asked and self._used else 1.0)
            self._held += counted
            self._asked_held += tokens
            self._token_due = max(self._token_due, now - SLACK) + counted * self._gap(self._tpm)
        self._set_due()

    def give_back(self, used: int, among: int) -> None:
        """One of so many requests in flight is over and used so many tokens (0: nobody knows, it keeps what it took).

        Which one is not known, so the mean of those in flight is put right: over all of them that is exact."""
        if not self._tpm:
            return
        counted, asked = self._held / among, self._asked_held / among
        self._held -= counted
        self._asked_held -= asked
        if used:
            self._token_due += (used - counted) * self._gap(self._tpm)
            self._learn(used, asked)
            self._set_due()

    def told(self, now: float, quota: Quota, used: int, in_flight: int) -> None:
        """What the provider says is left. What is scarce is spread evenly until it is whole again: right for limits
        that come back at once, and for those that trickle in it settles where as much is sent as comes back."""
        if used and not self._tpm:
            self._learn(used, used)
        requests = _gap(quota.requests_limit, quota.requests_left, quota.requests_reset, in_flight)
        each = max(1.0, self._used)
        tokens = each * _gap(quota.tokens_limit, quota.tokens_left, quota.tokens_reset, in_flight * each)
        before, self._told_gap = self._told_gap, max(requests, tokens) / self._share
        if self._told_gap:
            self._sent = self._sent if before else now  # until now nobody asked when
            what, left = ("requests", quota.requests_left) if requests >= tokens else ("tokens", quota.tokens_left)
            self._told_why = f"the provider has {left} {what} left"
            self._told_until = now + ((quota.requests_reset if requests >= tokens else quota.tokens_reset) or 0.0)
        self._set_due()

    def share(self, part: float, now: float, *, joins: bool) -> None:
        """This process's part of all rates; with none it sends nothing, and what it sent before is counted by the part
        it had. One that joins others begins with a gap: they have just sent."""
        self._share = part or self._share
        if joins and self._rpm:
            self._request_due = max(self._request_due, now + self._gap(self._rpm))
        self._set_due()

    def _gap(self, per_minute: int) -> float:
        return (MINUTE + SLACK) / (per_minute * self._share)

    def _learn(self, used: float, asked: float) -> None:
        weight = SMOOTHING if self._asked else 1.0
        self._used += (used - self._used) * weight
        self._asked += (asked - self._asked) * weight

    def _set_due(self) -> None:
        told = min(self._sent + self._told_gap, self._told_until) if self._told_gap else -math.inf
        self.due = max(self._request_due, self._token_due, told)
        if self.due == -math.inf:
            return
        if self.due == told:
            self.why = self._told_why
        elif self.due == self._request_due:
            self.why = f"{self._rpm} requests a minute"
        else:
            self.why = f"{self._tpm} tokens a minute"


def _gap(limit: int | None, left: int | None, reset: float | None, in_flight: float) -> float:
    """Seconds that one unit of a limit takes up; 0 while there is plenty, or where too little is known."""
    if not limit or left is None or not reset or reset > SHORT:
        return 0.0
    if left >= limit * min(HALF, max(SCARCE, 2 * in_flight / limit)):
        return 0.0
    return reset / left if left > 0 else 2 * reset / limit
