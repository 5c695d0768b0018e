"""The hall's little project and its fake server, at the terminal's door too."""

from tests.runs.conftest import _fake, fake, project

__all__ = ["_fake", "fake", "project"]
