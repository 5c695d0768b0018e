"""Weights & Biases by its own client. Offline, each attempt leaves an `offline-run-…` folder with the same run id, and
`wandb sync` joins them; nobody is called.

Every stage has an axis of its own: STAGE/step.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gristmill.core.errors import ConfigError
from gristmill.core.files import write_text
from gristmill.core.secrets import resolve
from gristmill.runs.sinks.kinds import WandbConfig
from gristmill.runs.sinks.sink import About, Point

REACHED_IN = 30.0
"""Seconds that its servers have to take the run in."""


def check(config: WandbConfig) -> None:
    if config.api_key:
        resolve(config.api_key)
    elif config.mode == "online" and not os.environ.get("WANDB_API_KEY"):
        raise ConfigError("sinks.wandb: online needs a key", "Set `api_key: env:WANDB_API_KEY`, and the variable.")


def open_sink(config: WandbConfig, about: About) -> Wandb:
    check(config)
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its crash reports would leave the machine
    import wandb

    about.folder.mkdir(parents=True, exist_ok=True)
    key = {"api_key": resolve(config.api_key)} if config.api_key else {}
    quiet = wandb.Settings(
        **key, console="off", silent=True, disable_git=True, disable_code=True, init_timeout=REACHED_IN
    )
    try:
        run = wandb.init(
            project=config.project,
            entity=config.entity,
            mode=config.mode,
            dir=about.folder,
            id=about.id,
            name=about.name,
            config=about.recipe,
            resume="allow" if config.mode == "online" else None,
            reinit="create_new",
            settings=quiet,
        )
    except wandb.Error as error:
        raise ConfigError(
            f"sinks.wandb: {error}", "Look at the key and the network, or set `mode: offline`."
        ) from error
    return Wandb(run, about.folder / "logged")


class Wandb:
    """A W&B run that goes on. Its server takes rows in ascending order alone, so attempts count on where the last one
    ended."""

    def __init__(self, run: Any, kept: Path) -> None:
        self.run = run
        self._kept = kept
        self._logged = int(kept.read_text()) if kept.exists() else 0
        self._stages: set[str] = set()

    def write(self, points: Sequence[Point]) -> None:
        for point in points:
            if point.stage not in self._stages:
                self._stages.add(point.stage)
                self.run.define_metric(f"{point.stage}/*", step_metric=f"{point.stage}/step")
            if point.step is None:
                self.run.summary.update({f"{point.stage}/{name}": value for name, value in point.values.items()})
            else:
                at = {f"{point.stage}/step": point.step}
                values = {f"{point.stage}/{name}": value for name, value in point.values.items()}
                self.run.log(at | values, step=self._logged)
                self._logged += 1
        write_text(self._kept, str(self._logged))

    def close(self, state: str, artifacts: Mapping[str, Path]) -> None:
        for name, path in artifacts.items():  # copied first: a run is sent from its own folder, perhaps from elsewhere
            copy = Path(self.run.dir, name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            self.run.save(str(copy), base_path=self.run.dir, policy="now")
        self.run.summary["state"] = state
        self.run.finish(exit_code=0 if state == "finished" else 1)
