"""Workspace: the folder that holds the store, the runs, and what runs share. Runs go by id, name or `latest`.

A name may be given again, to another run: it then means the one that was started last.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from gristmill.core.errors import ConfigError, InputError
from gristmill.core.secrets import resolve
from gristmill.core.store import Store, open_store

if TYPE_CHECKING:
    from gristmill.runs.folder import RunFolder

STORE = "GRISTMILL_STORE"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")


@dataclass(frozen=True)
class Workspace:
    root: Path

    @cached_property
    def store(self) -> Store:
        """The file in this folder, or the PostgreSQL server that GRISTMILL_STORE names: its address or `env:NAME`.

        An address holds a password, so it comes from the environment alone, never from a recipe or an argument."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"the workspace {self.root} cannot be made: {error.strerror}", "Choose another with --workspace."
            ) from error
        if not os.environ.get(STORE):
            return open_store(self.root / "store.db")
        address = resolve(resolve(f"env:{STORE}"))
        if not address.startswith(("postgresql://", "postgres://")):
            raise ConfigError(
                f"{STORE} names no PostgreSQL server",
                "Set it to its address, postgresql://HOST/DATABASE with user and password before HOST, or to env:NAME.",
            )
        return open_store(address, hashes=self.root / "files.db")

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def artifacts(self) -> Path:
        """Folders that passes write, by pass key: weights in the making survive a kill and serve every run."""
        return self.root / "artifacts"

    @property
    def cache(self) -> Path:
        """Derived files by content (unpacked weights, GGUF files): safe to delete."""
        return self.root / "cache"

    @staticmethod
    def check_name(name: str) -> None:
        """Names stand in commands and in file names, and `latest` means something already."""
        if name == "latest" or not _NAME.fullmatch(name):
            raise ConfigError(f"a run cannot be called `{name}`", "Use letters, digits, - _ and ., and not `latest`.")

    def manifests(self) -> list[dict[str, object]]:
        """Manifests of all runs, the one started last first."""
        paths = sorted(self.runs.glob("*/manifest.json"), key=lambda p: p.stat().st_mtime_ns, reverse=True)
        return sorted((orjson.loads(p.read_bytes()) for p in paths), key=lambda m: str(m["started"]), reverse=True)

    def stands_for(self, run: RunFolder) -> tuple[Workspace, RunFolder]:
        """Whose runs one of this workspace comes after, and which of theirs it is: where it is made again, another."""
        return self, run

    def find_run(self, name: str) -> Path:
        """The folder of a run, by id, name or `latest` (the one started last)."""
        manifests = self.manifests()
        if not manifests:
            raise InputError(f"no runs in {self.root}", "Start one: gristmill run RECIPE (or give --workspace).")
        for manifest in manifests:
            if name in ("latest", manifest["id"], manifest["name"]):
                return self.runs / str(manifest["id"])
        known = ", ".join(dict.fromkeys(str(m["name"]) for m in manifests[:8]))
        raise InputError(f"no run is called {name}", f"Runs here: {known}.")
