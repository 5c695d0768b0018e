"""Whom a stage that came to nothing has to blame: its models, its records, or what it was given. Exit codes follow it.

What failed is known by its reason, which outlives the attempt: a status, or the name of the error.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice

from gristmill.core.errors import GristmillError, InputError, ProviderError, StageFailure
from gristmill.core.records import File
from gristmill.runs.figures import counted
from gristmill.runs.folder import Inputs, Output

NAMED = 3
"""Reasons, or files, that a message names."""

_REJECTS = "See `gristmill show {run} rejects`"


def stopped_at(stage: str, run: str, failures: int, done: int, last: StageFailure, *, early: bool) -> GristmillError:
    """Too many records of a stage failed."""
    cause = last.__cause__
    among = f"the first {done}" if early else str(done)
    said = f"stage {stage} stopped: {failures} of {among} records failed; the last: {last.failure.error}"
    hint = getattr(cause, "hint", "") or f"{_REJECTS.format(run=run)}; what was answered is kept."
    if isinstance(cause, ProviderError) or _of_provider(last.failure.reason):
        return ProviderError(said, hint)
    return type(cause)(said, hint) if isinstance(cause, GristmillError) else GristmillError(said, hint)


def gave_nothing(stage: str, output: Output, inputs: Inputs) -> GristmillError:
    """A stage's finished output is empty."""
    said, taken, run = f"stage {stage} gave nothing", len(inputs), output.folder.parents[1].name
    lost: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    words = ""
    for row in output.rejects():
        if row["status"] == "rejected":
            rejected[row["reason"]] += 1
        else:
            lost[row["reason"]] += 1
            words = row["detail"]
    if lost and not rejected and any(map(_of_provider, lost)):
        said += f": {counted(lost.total(), 'record')} of {taken} failed: {_most(lost)}; the last: {words}"
        return ProviderError(said, f"{_REJECTS.format(run=run)}. `gristmill retry {run}` asks again.")
    if dropped := rejected + lost:
        share = "Every record was dropped" if dropped.total() >= taken else f"{dropped.total()} of {taken} were dropped"
        return InputError(said, f"{share}: {_most(dropped)}. {_REJECTS.format(run=run)}.")
    if not taken:
        return InputError(said, "It had nothing to work on.")
    if files := [file.path for file in islice(inputs, NAMED) if isinstance(file, File)]:
        more = f" and {taken - len(files)} more" if taken > len(files) else ""
        return InputError(said, f"There is nothing in {', '.join(files)}{more}.")
    return InputError(said, f"It took {counted(taken, 'record')} and made nothing of them. See its settings.")


def _most(reasons: Counter[str]) -> str:
    return ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(NAMED))


def _of_provider(reason: str) -> bool:
    return reason.startswith("HTTP ") or reason in _names(ProviderError)


def _names(kind: type[Exception]) -> set[str]:
    return {kind.__name__}.union(*map(_names, kind.__subclasses__()))
