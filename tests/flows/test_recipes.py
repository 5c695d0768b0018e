"""Every recipe that writes or cleans data, with the embedded model on a small input: it completes, or, where that hangs
on the model's words, says that nothing was left; and what was dropped has its reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench.recipes import EMPTY, RECIPES, pipelines, right, run

from gristmill.runs.folder import RunFolder


@pytest.mark.parametrize(
    ("recipe", "empty"), [("curate", False), ("embeddings", False), ("demo", False), ("mix", True)]
)
def test_only_a_recipe_whose_model_writes_may_end_with_nothing(recipe: str, empty: bool) -> None:
    path = RECIPES / f"{recipe}.yaml"
    assert right(path, 0) and not right(path, 1) and right(path, EMPTY) == empty


@pytest.mark.slow
@pytest.mark.parametrize("recipe", list(pipelines()), ids=lambda path: path.stem)
def test_it_completes_or_says_that_nothing_was_left(recipe: Path, tmp_path: Path) -> None:
    code, said = run(recipe, str(tmp_path))
    assert right(recipe, code), said
    outcome = json.loads(said)
    if code == EMPTY:
        assert outcome["error"] and outcome["hint"], said
    outputs = RunFolder(Path(outcome["folder"])).outputs()
    assert outputs
    for name, output in outputs.items():
        assert all(reject["reason"] for reject in output.rejects()), name
