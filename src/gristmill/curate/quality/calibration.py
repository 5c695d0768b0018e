"""How far a judge agrees with people, on the samples that both have judged.

The agreement's share stands with its 95 % interval (Wilson 1927), and beside it Cohen's kappa (Cohen 1960), which is 0
where two raters agree no more often than their habits alone would have it, and 1 where they always do. A person judges
a sample as a whole, so "all" (every check passed) is the line to read first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from gristmill.core.errors import InputError
from gristmill.core.intervals import wilson
from gristmill.core.records import Record, Report, Sample
from gristmill.core.stage import PassContext, PassResult, samples
from gristmill.curate.quality.judge_config import CalibrationConfig

APPROVED, ALL = "approve", "all"


@dataclass(frozen=True)
class Agreement:
    """Two raters of the same samples: how many both passed, the judge alone, the person alone, neither."""

    both: int = 0
    judge: int = 0
    person: int = 0
    neither: int = 0

    @property
    def n(self) -> int:
        return self.both + self.judge + self.person + self.neither

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa; None where one of two always says the same and chance explains all."""
        agreed = (self.both + self.neither) / self.n
        passed, approved = (self.both + self.judge) / self.n, (self.both + self.person) / self.n
        chance = passed * approved + (1 - passed) * (1 - approved)
        return None if chance == 1 else (agreed - chance) / (1 - chance)

    def told(self) -> dict[str, Any]:
        low, high = wilson(self.both + self.neither, self.n)
        shares = {"agreement": (self.both + self.neither) / self.n, "low": low, "high": high, "kappa": self.kappa}
        rounded = {name: None if value is None else round(value, 4) for name, value in shares.items()}
        return {"samples": self.n, **rounded, **vars(self)}


def run(config: CalibrationConfig, records: Iterable[Record], _ctx: PassContext) -> PassResult:
    rated = [sample for sample in samples(records) if _verdicts(sample) and "review" in sample.marks]
    known = dict.fromkeys(check for sample in rated for check in _verdicts(sample))
    checks = config.checks or list(known)
    missing = [check for check in checks if check not in known]
    if not rated or missing:
        raise InputError(
            "no sample was both judged and reviewed" if not rated else f"the judge was not asked {', '.join(missing)}",
            "Let curate.judge and curate.review come before, both with `drop: false`, on the same samples.",
        )
    found = {name: agreement(rated, wanted) for name, wanted in _lines(checks)}
    data = {name: each.told() for name, each in found.items() if each.n}
    yield Report(title="The judge beside people", data={"checks": data}, parents=tuple(s.id for s in rated))


def _lines(checks: list[str]) -> Iterator[tuple[str, list[str]]]:
    if len(checks) > 1:
        yield ALL, checks
    yield from ((check, [check]) for check in checks)


def _verdicts(sample: Sample) -> dict[str, Any]:
    judged = sample.marks.get("judge")
    return judged if isinstance(judged, dict) else {}


def agreement(rated: Iterable[Sample], checks: list[str]) -> Agreement:
    """What the judge says by all of these checks, beside what people say; a sample without one of them is left out."""
    counts = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
    for sample in rated:
        verdicts = _verdicts(sample)
        if all(check in verdicts for check in checks):
            passed = all(verdicts[check]["passed"] for check in checks)
            counts[passed, sample.marks["review"] == APPROVED] += 1
    return Agreement(counts[True, True], counts[True, False], counts[False, True], counts[False, False])
