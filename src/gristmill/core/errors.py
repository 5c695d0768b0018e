"""Every error a person can meet, with a message that says what happened and a hint that says what to do.

    GristmillError
    ├── ConfigError      exit 2    HTTP 422   the recipe, a flag or the installation is wrong
    ├── InputError       exit 3    HTTP 400   a document or a data file is wrong
    ├── ProviderError    exit 4    HTTP 502   a model could not be asked
    ├── SandboxError     exit 5    HTTP 500   untrusted code could not be isolated
    ├── CheckpointError  exit 6    HTTP 500   weights are missing, damaged or not what they claim to be
    ├── StoreError       exit 1    HTTP 500   what was paid for cannot be kept: the disk is full or not writable
    ├── BudgetError      exit 7    HTTP 402   a budget is reached: the run is paused and can go on
    └── Cancelled        exit 130  HTTP 409   stopped by a person
    Reject               a stage drops one record, with its reason: data, not a crash

`boundary` is the only place that catches everything: it turns what escapes a stage into a `Failure` with an address.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from gristmill.core.extras import extra_of, install_line


class GristmillError(Exception):
    """A message for people, a hint that says what to do, and the exit code that scripts see."""

    exit_code = 1
    http_status = 500

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type, tuple[str, str]]:  # stays whole when it crosses a process boundary
        return type(self), (self.message, self.hint)


class ConfigError(GristmillError):
    exit_code, http_status = 2, 422


class InputError(GristmillError):
    exit_code, http_status = 3, 400


class ProviderError(GristmillError):
    """A model could not be asked. The next run sends `transient` failures again; permanent ones are remembered."""

    exit_code, http_status = 4, 502

    def __init__(self, message: str, hint: str = "", *, transient: bool = False, status: int | None = None) -> None:
        super().__init__(message, hint)
        self.transient = transient
        self.status = status

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return ProviderError, (self.message, self.hint)


class Unreachable(ProviderError):
    """A role that no model serves: the key, the bill, the model's name or the address. No record is to blame."""


class SandboxError(GristmillError):
    exit_code = 5


class CheckpointError(GristmillError):
    exit_code = 6


class StoreError(GristmillError):
    """Nothing may go on that could not be kept."""


class BudgetError(GristmillError):
    exit_code, http_status = 7, 402


class Cancelled(GristmillError):
    exit_code, http_status = 130, 409


class Reject(Exception):
    """Raised by a stage to drop one record. `reason` is counted: keep it short; `detail` quotes what was wrong."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Failure:
    """What escaped a stage: where it happened, what it was, and whether asking again may help."""

    where: str
    error: str
    transient: bool
    reason: str = ""  # its kind in a word or two, to be counted by


class StageFailure(Exception):
    """Carries a Failure through the executor; never leaves it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.error)
        self.failure = failure


def not_installed(error: BaseException, where: str) -> ConfigError | None:
    """A failed import of what an extra brings, as the error that names the extra; None for anything else."""
    extra = extra_of(error.name or "") if isinstance(error, ModuleNotFoundError) else None
    if extra is None:
        return None
    return ConfigError(f"{where} needs a module that is not installed: {error}", install_line(extra))


# These stop the whole run: they are about the run, not about one record.
RUN_STOPPERS = (ConfigError, BudgetError, StoreError, Cancelled, Unreachable)
PASS_THROUGH = (Reject, StageFailure, *RUN_STOPPERS)

_EXHAUSTED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM, errno.EMFILE, errno.ENFILE}


def exhausted(error: BaseException | None) -> bool:
    """Whether the machine had no more memory, disk or file handles: no record's fault, and gone by the next run."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _EXHAUSTED)


class boundary:
    """Attribute whatever escapes to `where`. Rejects and errors that concern the whole run pass through unchanged.

    The one broad handler: a bad record is data, not a crash. Holds no state, so one serves all records of a stage.
    """

    __slots__ = ("where",)

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, PASS_THROUGH) or not isinstance(error, Exception):
            return
        if absent := not_installed(error, self.where):
            raise absent from error
        transient = bool(getattr(error, "transient", False)) or exhausted(error)
        raise StageFailure(Failure(self.where, _words(error), transient, _kind(error))) from error


def _words(error: Exception) -> str:
    """Ours speak for themselves (a provider's in its own words); any other needs its name."""
    return error.message if isinstance(error, GristmillError) else f"{type(error).__name__}: {error}"


def _kind(error: Exception) -> str:
    status = getattr(error, "status", None)
    return f"HTTP {status}" if isinstance(status, int) and status >= 400 else type(error).__name__


def run_error(failed: StageFailure, what: str) -> GristmillError:
    """What ended a run, for people: the error itself if it is ours, else trouble of the machine, or a defect."""
    cause = failed.__cause__
    if isinstance(cause, GristmillError):
        return cause
    hint = "This looks like a defect. The end of events.ndjson in the run's folder holds its traceback."
    if exhausted(cause):
        hint = "Free memory or disk space and run the same command again: what was done is kept."
    error = GristmillError(f"{what} failed: {failed.failure.error}", hint)
    error.__cause__ = cause
    return error
