"""Models of a hub, as they were fetched: `hub:OWNER/NAME[@REVISION]`. Looks; fetches nothing (that is `hub_transfer`).

The cache is in no workspace: GRISTMILL_CACHE, or `gristmill` in the user's cache folder. It holds a folder for each
commit, and for each revision that was asked for a note that names its commit, written once all files are there.
"""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from gristmill.core.errors import ConfigError
from gristmill.core.files import atomic
from gristmill.core.records import digest_of

PREFIX = "hub:"
_NAME = re.compile(r"hub:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


@dataclass(frozen=True)
class Kept:
    """A model in the cache. `sha256` is that of `Weights`: of all its files."""

    repository: str
    revision: str  # as asked for: a branch, tag or commit
    commit: str
    folder: Path
    sha256: str

    @property
    def source(self) -> str:
        return f"{PREFIX}{self.repository}@{self.commit}"


def cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("GRISTMILL_CACHE") or Path(home) / "gristmill") / "hub"


def place(repository: str) -> Path:
    return cache_folder() / repository.replace("/", "--")


def find(model: str) -> Kept | None:
    """The model as it was got, by the revision that was asked for or by the commit; None if it never was."""
    repository, revision = parts(model)
    note = _note(repository, revision)
    if not note.is_file():
        return None
    data = orjson.loads(note.read_bytes())
    return Kept(**{**data, "folder": note.parent / data["folder"]})


def require(model: str) -> Kept:
    """The model, or a ConfigError that names the line that gets it."""
    kept = find(model)
    if kept is None:
        raise ConfigError(f"the model {model} has not been fetched", f"Run: gristmill models get {model}")
    return kept


def check(kept: Kept, sha256: str) -> None:
    if sha256 != kept.sha256:
        raise ConfigError(
            f"the files of {kept.source} are not those that were fetched: {kept.folder}",
            f"Remove that folder and run: gristmill models get {PREFIX}{kept.repository}@{kept.revision}",
        )


def parts(model: str) -> tuple[str, str]:
    hit = _NAME.fullmatch(model)
    if hit is None or ".." in model:
        raise ConfigError(f"{model} names no model of a hub", "Write hub:OWNER/NAME or hub:OWNER/NAME@REVISION.")
    return hit[1], hit[2] or "main"


def _note(repository: str, revision: str) -> Path:
    name = revision if re.fullmatch(r"[\w.-]+", revision) else digest_of(revision)[:16]
    return place(repository) / f"{name}.json"


def write_note(kept: Kept, revision: str) -> None:
    note = _note(kept.repository, revision)
    with atomic(note) as file:
        file.write(orjson.dumps({**asdict(kept), "revision": revision, "folder": kept.folder.name}))
