"""Secrets are named, never written: `env:NAME` in a recipe. Values stay out of files, logs, argv and the store."""

from __future__ import annotations

import os
import re

from gristmill.core.errors import ConfigError

_ENV = re.compile(r"^env:([A-Za-z_][A-Za-z0-9_]*)$")


def env_name(value: str) -> str | None:
    """The variable that `env:NAME` names; None for any other text."""
    hit = _ENV.match(value)
    return hit[1] if hit else None


def resolve(value: str) -> str:
    """The text itself, or the present value of the variable it names."""
    name = env_name(value)
    if name is None:
        return value
    found = os.environ.get(name)
    if not found:
        raise ConfigError(f"the environment variable {name} is not set", f"export {name}=… before the command.")
    return found
