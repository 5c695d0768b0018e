"""The terminal door: one file a verb. Heavy imports stay inside the verbs, so that `--help` is instant."""

from gristmill.cli.app import main

__all__ = ["main"]
