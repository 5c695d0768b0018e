"""What stands in a store besides bytes under keys: charges, their sums, and what is held for calls in flight."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

Status = Literal["given", "rejected", "failed"]
"""What became of a record in a step."""

STATUSES: tuple[Status, ...] = ("given", "rejected", "failed")
STATUS_NUMBER: dict[Status, int] = {status: number for number, status in enumerate(STATUSES)}
"""How a status is stored."""


class Charge(NamedTuple):
    """What one request cost, or may have cost: one that brought no answer is charged what was reserved for it.

    A tuple, because one is made for every call. `nano_usd` are billionths of a dollar: whole numbers add up exactly.
    """

    run: str
    stage: str
    role: str
    calls: int = 1
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    tokens_reasoning: int = 0
    nano_usd: int = 0
    answered: bool = True


@dataclass(frozen=True)
class Spent:
    """Charges added up. `calls` counts all of them, `unanswered` those among them that brought no answer."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    tokens_reasoning: int = 0
    nano_usd: int = 0
    unanswered: int = 0

    @property
    def usd(self) -> float:
        return self.nano_usd / 1e9


@dataclass(frozen=True)
class Hold:
    """The most that what a run has in flight can cost. One that a killed process left behind may have been spent."""

    calls: int = 0
    tokens: int = 0
    nano_usd: int = 0


@dataclass(frozen=True)
class Holder:
    """Who holds a run, for people."""

    process: int
    host: str
    since: str

    @classmethod
    def this(cls) -> Self:
        return cls(os.getpid(), socket.gethostname(), time.strftime("%Y-%m-%d %H:%M:%S %Z"))

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}"


Payer = tuple[str, str, str]
"""Run, stage, role: one line of the ledger."""


def by_payer(charges: list[Charge]) -> dict[Payer, list[int]]:
    """Sums in the order of the fields of `Spent`: the ledger grows by one line per commit, not per call."""
    sums: dict[Payer, list[int]] = {}
    for run, stage, role, calls, tokens_in, tokens_out, cached, reasoning, nano_usd, answered in charges:
        line = sums.get((run, stage, role))
        if line is None:
            line = sums[run, stage, role] = [0] * 7
        line[0] += calls
        line[1] += tokens_in
        line[2] += tokens_out
        line[3] += cached
        line[4] += reasoning
        line[5] += nano_usd
        if not answered:
            line[6] += calls
    return sums
