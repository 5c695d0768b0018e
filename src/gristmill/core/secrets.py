"""Secrets are named, never written: `env:NAME` in a recipe. Values stay out of files, logs, argv and the store.

The variable NAME holds the value, or NAME_FILE the path of a file that does, as Docker and Kubernetes hand secrets in.
An environment is fixed when a process starts; a file may change while it runs, so that a key can be replaced.

Whatever is resolved is remembered by this process, so that `scrub` can take it out of words that others wrote: a
provider that quotes the key in its error, a driver that quotes its address. Every word of a provider, every event and
every line of the log goes through it.
"""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote, urlsplit

from gristmill.core.errors import ConfigError

_ENV = re.compile(r"^env:([A-Za-z_][A-Za-z0-9_]*)$")

SHORTEST = 6
"""Characters of a value worth hiding: a shorter one (`EMPTY`, `k`) protects nothing and stands in many words."""

_known: dict[str, str] = {}  # every form of every value -> the name that stands for it
_pattern: re.Pattern[str] | None = None


def env_name(value: str) -> str | None:
    """The variable that `env:NAME` names; None for any other text."""
    hit = _ENV.match(value)
    return hit[1] if hit else None


def resolve(value: str) -> str:
    """The text itself, or the present value of the variable it names; that value is hidden from now on."""
    found = look_up(value)
    if env_name(value):
        guard(found, value)
    return found


def look_up(value: str) -> str:
    """As `resolve`, of what is no secret: words that name it stay as they are."""
    name = env_name(value)
    if name is None:
        return value
    found, path = os.environ.get(name, "").strip(), os.environ.get(f"{name}_FILE")
    if found and path:
        raise ConfigError(f"both {name} and {name}_FILE are set", "Keep the one that is meant.")
    if path:
        found = _read(Path(path), f"{name}_FILE")
    if not found:
        hint = f"export {name}=… before the command, or {name}_FILE=PATH of a file that holds it."
        raise ConfigError(f"the environment variable {name} is not set", hint)
    return found


def _read(path: Path, name: str) -> str:
    """What a file holds now. Its path is not said: it may be a secret in the wrong variable."""
    try:
        found = path.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it holds no text"
        raise ConfigError(f"the file that {name} names cannot be read: {why}", f"Look at {name}.") from None
    if not found:
        raise ConfigError(f"the file that {name} names is empty", "Write the value into it.")
    return found


def guard(value: str, name: str) -> None:
    """Hide a value from now on, and the password in it if it is an address. An earlier value of the name stays hidden:
    answers to it may still be under way."""
    global _pattern
    fresh = {form: name for secret in (value, *_password(value)) for form in _forms(secret)}
    if fresh.keys() <= _known.keys():
        return
    _known.update(fresh)
    longest_first = sorted(_known, key=len, reverse=True)
    _pattern = re.compile("|".join(map(re.escape, longest_first)))


def _password(value: str) -> list[str]:
    try:
        found = urlsplit(value).password if "://" in value else None
    except ValueError:
        return []
    return [found, unquote(found)] if found else []


def _forms(secret: str) -> set[str]:
    """The value as it may be quoted: plain, in an address, in base64, in JSON."""
    if len(secret) < SHORTEST:
        return set()
    raw = secret.encode()
    encoded = {base64.b64encode(raw).decode().rstrip("="), base64.urlsafe_b64encode(raw).decode().rstrip("=")}
    escaped = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    return {secret, quote(secret, safe=""), quote(secret), quote_plus(secret), *encoded, *escaped}


def scrub(text: str) -> str:
    """A text with every known secret replaced by the name that stands for it."""
    if _pattern is None:
        return text
    return _pattern.sub(lambda hit: f"[{_known[hit[0]]}]", text)
