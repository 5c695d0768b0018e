"""Which version of a data set this is: a short name that follows from what its samples say, and from nothing else.

Neither where the sources stand now, nor the order of the samples, nor when they were made changes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gristmill.core.records import Sample, digest_of

Said = tuple[str, str]
"""Hash of what a sample says, and its split."""

TRAIN = "train"
"""The split of samples that say none."""


def said(content: Mapping[str, Any]) -> str:
    """Hash of all that a sample is (`Sample.content`), but for the places it quotes."""
    return digest_of({name: value for name, value in content.items() if name != "quotes"})


def said_of(sample: Sample) -> Said:
    return said(sample.content()), str(sample.marks.get("split", TRAIN))


def version_of(samples: Iterable[Said]) -> str:
    """The name of a data set, from what is said of each of its samples."""
    return digest_of(sorted(samples))[:12]


def version(samples: Iterable[Sample]) -> str:
    return version_of(map(said_of, samples))
