"""Finds how many requests a line should have in flight, from nothing but what comes back.

The rule. Find the smallest concurrency that reaches about the best rate of work, and keep looking.

* Work is tokens written (calls, where usage is unknown). The rate at a level is `in flight x work per slot-second`
  (Little's law), over calls that began at that level: answers of different length have nearly the same speed, so this
  ratio is steady after a round trip where counting tokens per second would need minutes. Slot-seconds of refused and
  failed requests count as spent, so refusals that rise with concurrency show as a rate that does not.
* Ramp (TCP slow start): from the start, double after each round trip while that gains 5 %.
* Steady: after a pause, one trial upwards (x 1.5). Where a higher level brought nothing the server queues (no 429 will
  ever say so): then trials downwards, by bisection, and the lowest level that keeps 98 % becomes home. A trial must
  stand against home as measured before it and again after it, so that a noisy machine does not decide. Gains and
  losses are compared with their standard errors; what failed is tried again after pauses that double.
* 429: once per burst (until the Retry-After of its first refusal has passed, or one round trip) the limit falls to
  0.7: that, too, is a trial. Where the rate keeps up, the refusals were the concurrency's and the lower level is home;
  where the rate fell with the limit they were not (a share of refusals that concurrency does not change): the limit
  climbs back at once, and the next fall waits longer and is smaller. So one 429 never stops a line.

A level is judged only while the line fills it; a line that waits for its caller teaches nothing (BBR's app-limited).

Sources: Netflix concurrency-limits (gradient of latency; github.com/Netflix/concurrency-limits), TCP Vegas (queue
= limit x (1 - best / actual round trip)), BBR (maximise delivery rate, probe up and drain; Cardwell et al. 2016), AIMD
(Chiu and Jain 1989). Rate is used and not latency, because a server that batches (vLLM) slows every answer long before
it stops gaining.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

UP_DOUBLED, UP, DOWN = 1.05, 1.03, 0.98  # rate that x 2, x 1.5 and any lower level must reach, as a part of home's
FALL = 0.7
FILLED = 0.8  # in flight on average, as a part of the level, for the level to be judged
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 120.0  # seconds between trials; or so many round trips, if that is more:
PAUSE_TRIPS, LONGEST_TRIPS = 20, 400
LONGEST_QUIET = 30.0  # seconds between falls that brought nothing
LONGEST_BURST = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Measured:
    """The rate at a level."""

    level: int
    rate: float  # work per second
    error: float  # standard error, as a part of the rate
    calls: float  # answers per second
    enough: bool  # waiting for more answers is not worth it
    filled: bool  # the line used the level


class Climb:
    """Told of every request that leaves; `limit` is the level to keep. All times are seconds of one monotonic clock."""

    def __init__(self, start: int, ceiling: int, *, moved: Callable[[], None] = lambda: None) -> None:
        """`moved` is called when the limit has fallen or the best level is another one: rarely."""
        self._moved = moved
        self.ceiling = ceiling
        self.limit = self.home = min(start, ceiling)
        self.why = "as configured"
        self.refused_at: int | None = None  # a level at which the provider refused and less did as well
        self.stamps = 0.0  # moments of leaving less moments of entering: with those in flight, slot-seconds
        self.trip = 0.0  # seconds of an answer
        self._ramping = self.limit < ceiling
        self._ramp_base: Measured | None = None  # at half the level
        self._phase = "ramp" if self._ramping else "steady"
        self._base: Measured | None = None  # home, before a trial
        self._tried: Measured | None = None  # a trial that passed and is compared with home once more
        self._tried_phase = ""
        self._low = 0  # highest level found worse than home
        self._plateau = False  # a higher level brought nothing
        self._burst_ends = -math.inf
        self._next = {"up": -math.inf, "down": -math.inf, "fall": -math.inf}  # not before
        self._vain = {"up": 0, "down": 0, "fall": 0}  # trials that brought nothing, in a row
        self._given_up = 1.0  # rate at home as a part of what the levels above it reached
        self._slot_seconds_before = 0.0  # those of the window
        self._go(self._phase, self.limit)

    # What happens to requests. `in_flight` is without the one that leaves.

    def answered(self, now: float, seconds: float, work: float, in_flight: int) -> None:
        if self.limit < self._level:  # upwards by one for each answer: no burst of new requests
            self.limit += 1
        if now - seconds < self._since:
            self._wait_for_room(now, in_flight)
            return
        self._answers += 1
        self._work += work
        self._seconds += seconds
        self._work2 += work * work
        self._work_seconds += work * seconds
        self._seconds2 += seconds * seconds
        if self._answers + self._losses >= self._check:
            self._judge(now, in_flight)

    def failed(self, now: float, seconds: float, in_flight: int) -> None:
        if now - seconds < self._since:
            self._wait_for_room(now, in_flight)
            return
        self._losses += 1
        self._failed_seconds += seconds
        if self._answers + self._losses >= self._check:
            self._judge(now, in_flight)

    def refused(self, now: float, wait: float | None, seconds: float, in_flight: int) -> None:
        if now - seconds < self._since:
            self._wait_for_room(now, in_flight)
        else:
            self._refused_seconds += seconds
        if now < self._burst_ends or self._phase in ("up", "down", "check"):
            return  # a trial under way is judged by its rate, and is soon over
        self._burst_ends = now + max(min(wait or 0.0, LONGEST_BURST), self.trip or FIRST_PAUSE)
        if now >= self._next["fall"] and self.limit > 1:
            self._fall(now, in_flight)

    def restart(self, level: int, refused_at: int | None) -> None:
        """Begin at a level that was found before, and look above it at once unless refusals were met there."""
        self.home, self.refused_at = min(level, self.ceiling), refused_at
        self._ramping = self.home < self.ceiling and refused_at is None
        self.why = f"{self.home} was best before"
        self._go_home()
        self.limit = self._level

    def cap(self, ceiling: int) -> None:
        """Another ceiling holds from now on."""
        if ceiling == self.ceiling:
            return
        at_ceiling = self.home == self.ceiling
        self.ceiling, self._ramp_base = ceiling, None
        self.home = ceiling if at_ceiling else min(self.home, ceiling)
        self._go_home()
        self.limit = self._level

    # Measuring.

    def _go(self, phase: str, level: int) -> None:
        """A new window at a level; it opens once the level is reached, from above or from below."""
        self._phase = phase
        self._level = max(1, min(level, self.ceiling))
        self.limit = min(self.limit, self._level)
        self._reset(math.inf)

    def _reset(self, since: float) -> None:
        self._since = since
        self._answers = self._losses = 0
        self._work = self._seconds = self._failed_seconds = self._refused_seconds = 0.0
        self._work2 = self._work_seconds = self._seconds2 = 0.0
        self._need = max(6, self._level // 2 if self._phase in ("ramp", "fall") else self._level)
        self._check = self._need

    def _wait_for_room(self, now: float, in_flight: int) -> None:
        if self._since == math.inf and in_flight <= self.limit == self._level:
            self._open(now, in_flight)

    def _open(self, now: float, in_flight: int) -> None:
        self._reset(now)
        self._slot_seconds_before = self.stamps + in_flight * now

    def _measure(self, now: float, in_flight: int) -> Measured:
        n, work, seconds = self._answers, self._work, max(self._seconds, 1e-9)
        span = max(now - self._since, 1e-9)
        in_use = (self.stamps + in_flight * now - self._slot_seconds_before) / span
        flow = max(0.0, in_use - self._refused_seconds / span) / (seconds + self._failed_seconds)
        error = 1.0
        if n > 1 and work > 0:
            speed = work / seconds
            spread = self._work2 - 2 * speed * self._work_seconds + speed * speed * self._seconds2
            error = math.sqrt(max(0.0, spread) * n / (n - 1)) / work
        if n:
            self.trip = seconds / n
        enough = n + self._losses >= 6 * self._need
        return Measured(self.limit, flow * work, error, flow * n, enough, in_use >= FILLED * self.limit)

    # Deciding.

    def _judge(self, now: float, in_flight: int) -> None:
        self._check += max(2, self._need // 3)  # the next time, if nothing is decided now
        found = self._measure(now, in_flight)
        if not found.filled:
            if self._phase in ("ramp", "steady"):
                self._open(now, in_flight)
            else:
                self._go_home()
        elif self._phase == "ramp":
            self._ramp(now, found)
        elif self._phase == "steady":
            self._steady(now, found, in_flight)
        elif self._phase == "check":
            self._check_again(now, found)
        else:
            self._trial(now, found)

    def _ramp(self, now: float, found: Measured) -> None:
        base = self._ramp_base
        gains = True if base is None else _above(found, base, UP_DOUBLED, enough=found.enough)
        if gains is None:
            return
        if base is not None and not gains:
            self.home, self._ramping, self._plateau, self._low, self._given_up = base.level, False, True, 0, 1.0
            self._settle(base)
            self._pause("up", now)
            self._go_home()
            self._moved()
            return
        self.home, self._ramp_base = found.level, found
        self._plateau = False
        self.why = f"climbing: {found.calls:.3g} answers/s at {found.level}"
        if found.level < self.ceiling:
            self._go("ramp", 2 * found.level)
        else:
            self._ramping = False
            self._settle(found)
            self._go_home()

    def _steady(self, now: float, found: Measured, in_flight: int) -> None:
        lower = 0
        if self._plateau and now >= self._next["down"]:
            lower = self._lower() or self.home - max(1, self.home // 8)  # after a pause, only the next below
        if lower:
            self._base = found
            self._go("down", lower)
        elif self.home < self.ceiling and now >= self._next["up"]:
            self._base = found
            self._go("up", max(self.home + 1, self.home * 3 // 2))
        elif found.enough:  # what a trial is compared with must be recent
            self._settle(found)
            self._open(now, in_flight)

    def _lower(self) -> int:
        """The next level to try below home, by bisection; 0 if none is worth it."""
        middle = (self.home + self._low) // 2
        return middle if self._low < middle and self.home - middle > self.home // 16 else 0

    def _fall(self, now: float, in_flight: int) -> None:
        """Fewer at once, for a burst of refusals has begun."""
        if self._phase == "fall" and (self._answers or self._since == math.inf):
            return  # a fall is being judged already; only where nothing is answered any more it goes deeper
        if self._phase != "fall":
            found = self._measure(now, in_flight) if self._answers >= max(4, self.limit // 2) else None
            self._base = found if found is not None and found.filled else None
            self.home = self.limit if self._phase == "ramp" else self.home
        middle = (self._low + self.limit) // 2
        self.why = f"fell at {time.strftime('%H:%M:%S')} after 429"
        self._go("fall", min(self.limit - 1, max(int(self.limit * FALL), middle)))
        self._moved()

    def _trial(self, now: float, found: Measured) -> None:
        passed = None if self._base is None else self._passes(self._phase, found, self._base, enough=found.enough)
        if self._base is not None and passed is None:
            return
        if passed is False:
            self._reject(self._phase, now, found.level)
        elif passed and self._base is not None and self._phase == "fall":
            self._accept("fall", now, found, self._base)
        else:
            self._tried, self._tried_phase = found, self._phase
            self._go("check", self.home)

    def _check_again(self, now: float, found: Measured) -> None:
        """Home once more, after a trial: the trial must stand against this, too."""
        tried, phase = self._tried, self._tried_phase
        passed = tried and self._passes(phase, tried, found, enough=found.enough)
        if tried is None or passed is None:
            return
        if passed:
            self._accept(phase, now, tried, found)
        else:
            self._reject(phase, now, tried.level)

    def _passes(self, phase: str, found: Measured, base: Measured, *, enough: bool) -> bool | None:
        if phase == "up":
            return _above(found, base, UP, enough=enough)
        return _keeps(found, base, DOWN / self._given_up, enough=enough)  # small losses must not add up

    def _accept(self, phase: str, now: float, found: Measured, base: Measured) -> None:
        self._vain[phase] = 0
        gain = found.rate / base.rate if base.rate > 0 else 1.0
        self._given_up = 1.0 if phase == "up" else min(1.0, self._given_up * gain)
        old, self.home = self.home, found.level
        self._low = self._low if self._low < self.home else 0
        self._settle(found)
        if phase == "up":
            self._low, self._plateau, self._ramping, self._ramp_base = old, False, True, found
            self._go("ramp", 2 * found.level)
            return
        if phase == "fall":
            self.refused_at, self._ramping, self._plateau, self._low = old, False, True, 0
            self.why = f"fell at {time.strftime('%H:%M:%S')} after 429"
        self._vain["up"] = max(self._vain["up"], 2)  # what is above brought nothing
        self._pause("up", now)
        self._go_home()
        self._moved()

    def _reject(self, phase: str, now: float, level: int) -> None:
        if phase == "up":
            self._plateau = True
            self._pause("up", now)
        else:
            self._low = max(self._low, level)
            if phase == "fall":
                self.why = f"refused whatever the limit: 429, last at {time.strftime('%H:%M:%S')}"
                self._pause("fall", now)
            elif not self._lower():
                self._pause("down", now)
        self._go_home()

    def _go_home(self) -> None:
        """Back to the best level known, and on with the ramp if a fall broke into it."""
        self._base = self._tried = None
        self._go("ramp" if self._ramping else "steady", self.home)

    def _pause(self, phase: str, now: float) -> None:
        seconds = max(FIRST_PAUSE, PAUSE_TRIPS * self.trip) * 2 ** self._vain[phase]
        longest = max(LONGEST_QUIET if phase == "fall" else LONGEST_PAUSE, LONGEST_TRIPS * self.trip)
        self._next[phase] = now + min(seconds, longest)
        self._vain[phase] = min(self._vain[phase] + 1, 10)

    def _settle(self, found: Measured) -> None:
        if found.level < self.ceiling or self._plateau:
            self.why = f"best rate of {found.calls:.3g} answers/s at {found.level}"
        else:
            self.why = f"{found.calls:.3g} answers/s at the ceiling"


def _above(found: Measured, base: Measured, part: float, *, enough: bool) -> bool | None:
    """Whether a rate is so many times another, beyond doubt; None while more answers may tell."""
    gain, doubt = _compare(found, base)
    if abs(gain - part) > 2 * doubt:
        return gain > part
    return gain - doubt > part if enough else None


def _keeps(found: Measured, base: Measured, part: float, *, enough: bool) -> bool | None:
    """Whether a rate is at least such a part of another, by all that is known; None while more answers may tell."""
    gain, doubt = _compare(found, base)
    return gain > part if enough or abs(gain - part) > 2 * doubt else None


def _compare(found: Measured, base: Measured) -> tuple[float, float]:
    gain = found.rate / base.rate if base.rate > 0 else math.inf
    return gain, (0.0 if base.rate <= 0 else gain * math.hypot(found.error, base.error))
