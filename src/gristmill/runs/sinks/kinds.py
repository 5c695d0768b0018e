"""Every kind of sink: ours, and other packages' by the entry point `gristmill.sinks`."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from typing import Literal

from pydantic import Field, field_validator

from gristmill.core.errors import ConfigError
from gristmill.core.extras import install_line, missing
from gristmill.core.secrets import env_name
from gristmill.core.stage import load_code
from gristmill.runs.sinks.sink import SinkConfig, SinkKind


class TensorboardConfig(SinkConfig):
    """Event files that `tensorboard --logdir` shows, one folder for each stage."""

    folder: str | None = Field(None, description="Where: FOLDER/RUN/STAGE; the run's own folder, if not given")


class MlflowConfig(SinkConfig):
    """A run of an MLflow experiment, on a server or in a folder."""

    uri: str | None = Field(
        None, description="http(s)://… of a server, a folder, or env:NAME of a variable; the run's own folder by itself"
    )
    experiment: str = Field("gristmill", min_length=1, description="Experiment that the run is filed under")
    token: str | None = Field(None, description="Bearer token of the server, as env:NAME")

    _token_is_named = field_validator("token")(lambda value: _named(value, "token"))

    @field_validator("uri")
    @classmethod
    def _server_or_folder(cls, value: str | None) -> str | None:
        scheme, colon, _ = (value or "").partition("://")
        if colon and scheme not in ("http", "https"):
            raise ValueError(f"`{scheme}://` is neither a server nor a folder: start `mlflow server` on it")
        return value


class WandbConfig(SinkConfig):
    """A Weights & Biases run; offline it stays in the run's folder until `wandb sync` sends it."""

    project: str = Field("gristmill", min_length=1, description="Project that the run is filed under")
    entity: str | None = Field(None, description="User or team; the key's own, if not given")
    mode: Literal["offline", "online"] = Field("offline", description="offline writes files and calls nobody")
    api_key: str | None = Field(None, description="Key for online, as env:NAME")

    _key_is_named = field_validator("api_key")(lambda value: _named(value, "api_key"))


def _named(value: str | None, key: str) -> str | None:
    if value is not None and env_name(value) is None:
        raise ValueError(f"`{key}` is a secret: write env:NAME, and set the variable NAME")
    return value


_HERE = "gristmill.runs.sinks"

SINKS: dict[str, SinkKind] = {
    "tensorboard": SinkKind(TensorboardConfig, f"{_HERE}.tensorboard:open_sink", extra="tensorboard"),
    "mlflow": SinkKind(MlflowConfig, f"{_HERE}.mlflow:open_sink", f"{_HERE}.mlflow:check", extra="mlflow"),
    "wandb": SinkKind(WandbConfig, f"{_HERE}.wandb:open_sink", f"{_HERE}.wandb:check", extra="wandb"),
}


@cache
def sinks() -> dict[str, SinkKind]:
    """Name -> kind. Importing this imports configs only, never a tracker."""
    found = dict(SINKS)
    for point in entry_points(group="gristmill.sinks"):
        for name, kind in point.load().items():
            if name in found:
                raise ConfigError(f"plug-in {point.name} redefines the sink {name}", "Rename the plug-in's sink.")
            found[name] = kind
    return found


def check_sink(name: str, config: SinkConfig) -> None:
    """Raise ConfigError where a run with it could not start: not installed, not reachable, no key."""
    kind = sinks()[name]
    if kind.extra and missing(kind.extra):
        raise ConfigError(f"the sink {name} is not installed", install_line(kind.extra))
    if kind.check:
        load_code(kind.check)(config)
