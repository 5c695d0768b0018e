"""Every recipe that writes or cleans data, with the embedded model on a small input: it completes, or says that nothing
was left; and what was dropped has its reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench.recipes import EMPTY, pipelines, run

from gristmill.runs.folder import RunFolder


@pytest.mark.slow
@pytest.mark.parametrize("recipe", list(pipelines()), ids=lambda path: path.stem)
def test_it_completes_or_says_that_nothing_was_left(recipe: Path, tmp_path: Path) -> None:
    code, said = run(recipe, str(tmp_path))
    assert code in (0, EMPTY), said
    outcome = json.loads(said)
    if code == EMPTY:
        assert outcome["error"] and outcome["hint"], said
    outputs = RunFolder(Path(outcome["folder"])).outputs()
    assert outputs
    for name, output in outputs.items():
        assert all(reject["reason"] for reject in output.rejects()), name
