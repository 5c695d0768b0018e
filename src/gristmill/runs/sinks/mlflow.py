"""MLflow by its client alone: one MLflow run for one run of ours, gone on with by every attempt.

Metrics are called STAGE/NAME, words of a stage are tags, the recipe is parameters and a file. A folder in place of a
server is MLflow's file store, which it keeps reading and writing and no longer extends; it asks for
MLFLOW_ALLOW_FILE_STORE=true, which is set here.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from gristmill.core.errors import ConfigError
from gristmill.core.files import write_text
from gristmill.core.secrets import look_up, resolve
from gristmill.runs.sinks.kinds import MlflowConfig
from gristmill.runs.sinks.sink import About, Point

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

REACHED_IN = 5.0
"""Seconds that a server has to answer anything at all before a run starts."""

_MANNERS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Unless the environment says otherwise: by itself its client tries a server that is gone for minutes, and prints."""

_STATUS = {"finished": "FINISHED", "failed": "FAILED", "incomplete": "FAILED"}
"""Of an attempt's end in MLflow's words; a paused or stopped one is KILLED until the next attempt."""

PARAMS, METRICS = 100, 1000
"""What MLflow takes in one request."""


def check(config: MlflowConfig) -> None:
    """The server answers, whatever it answers."""
    if config.token:
        resolve(config.token)
    uri = look_up(config.uri or "")
    if not uri.startswith(("http://", "https://")):
        return
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=REACHED_IN).close()  # noqa: S310  (http by now)
    except urllib.error.HTTPError as refused:
        refused.close()  # it is there; what it thinks of us its client will say
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"sinks.mlflow: {uri} cannot be reached: {error}",
            "Start it (`mlflow server`), mend `uri`, or leave the sink out: --set sinks.mlflow=null",
        ) from error


def open_sink(config: MlflowConfig, about: About) -> Mlflow:
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    check(config)
    for name, value in _MANNERS.items():
        os.environ.setdefault(name, value)
    if config.token:
        os.environ["MLFLOW_TRACKING_TOKEN"] = resolve(config.token)  # the only way its client takes one
    uri = look_up(config.uri or str(about.folder / "mlruns"))
    if not uri.startswith(("http://", "https://")):
        uri = (about.base / uri).resolve().as_uri()
        os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    try:
        client = MlflowClient(tracking_uri=uri)
        return Mlflow(client, _run(client, config.experiment, about))
    except MlflowException as error:
        raise ConfigError(f"sinks.mlflow: {error}", f"Look at the server behind {uri}, or at its folder.") from error


class Mlflow:
    """One MLflow run that goes on."""

    def __init__(self, client: MlflowClient, run: str) -> None:
        self.client = client
        self.run = run

    def write(self, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric, RunTag

        metrics = [
            Metric(f"{point.stage}/{name}", value, int(point.time * 1000), point.step or 0)
            for point in points
            for name, value in point.numbers.items()
        ]
        tags = [RunTag(f"{point.stage}.{name}", words) for point in points for name, words in point.words.items()]
        for some in _parts(metrics, METRICS):
            self.client.log_batch(self.run, metrics=some)
        for some in _parts(tags, PARAMS):
            self.client.log_batch(self.run, tags=some)

    def close(self, state: str, artifacts: Mapping[str, Path]) -> None:
        for name, path in artifacts.items():
            self.client.log_artifact(self.run, str(path), os.path.dirname(name) or None)  # noqa: PTH120  (a name)
        self.client.set_terminated(self.run, _STATUS.get(state, "KILLED"))


def _run(client: MlflowClient, experiment: str, about: About) -> str:
    """The MLflow run that an earlier attempt began, or a new one."""
    from mlflow.entities import Param

    kept = about.folder / "run_id"
    if kept.exists():
        run = kept.read_text("utf-8")
        client.set_terminated(run, "RUNNING")
        return run
    found = client.get_experiment_by_name(experiment)
    where = found.experiment_id if found else client.create_experiment(experiment)
    run = str(client.create_run(where, run_name=about.name, tags={"gristmill.run": about.id}).info.run_id)
    for some in _parts([Param(name, value) for name, value in _flat(about.recipe)], PARAMS):
        client.log_batch(run, params=some)
    write_text(about.folder / "recipe.json", orjson.dumps(about.recipe, option=orjson.OPT_INDENT_2).decode())
    client.log_artifact(run, str(about.folder / "recipe.json"))
    write_text(kept, run)
    return run


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """A recipe's values under dotted names, each as short as MLflow takes it."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _flat(child, f"{name}.{key}" if name else str(key))
    else:
        yield name, str(value)[:500]


def _parts(items: list[Any], size: int) -> list[list[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
