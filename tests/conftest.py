"""What every test can rely on: two torch threads at most, no progress bars, no calls to a model hub."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["NO_COLOR"] = "1"
os.environ.pop("GRISTMILL_WORKSPACE", None)


@pytest.fixture
def reader() -> None:
    """One process reads again what all these runs write; each would start its own, which takes longer than they do."""
    from gristmill.models.reread import READER

    READER.start()
