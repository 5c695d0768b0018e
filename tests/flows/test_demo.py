"""The demo, whole: six documents, the embedded model, no key; then the taught model served to the official client."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest
from tests.runs.project import Project

from gristmill.core.records import Report
from gristmill.runs.folder import RunFolder

pytestmark = pytest.mark.slow
RECIPE = Path(__file__).parents[2] / "recipes/demo.yaml"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("demo"))
    command = project.command("run", RECIPE, "--name", "demo", "--quiet")
    subprocess.run(command, env=environment(project), check=True, timeout=1500, stdout=subprocess.DEVNULL)
    return project


def environment(project: Project) -> dict[str, str]:
    return {**os.environ, "GRISTMILL_WORKSPACE": str(project.workspace)}


def exam(project: Project) -> dict[str, object]:
    [folder] = project.workspace.glob("runs/*")
    [report] = [r for r in RunFolder(folder).outputs()["exam"] if isinstance(r, Report)]
    return dict(report.data)


@contextmanager
def served(project: Project) -> Iterator[str]:
    command = project.command("serve", "demo", "--port", "0")
    process = subprocess.Popen(command, env=environment(project), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split(" at ")[1].split()[0]
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_the_tuned_model_has_learned_what_its_base_cannot_know(demo: Project) -> None:
    arms: dict[str, dict[str, float]] = exam(demo)["arms"]  # type: ignore[assignment]
    base, tuned = arms["student"], arms["tuned"]
    assert tuned["low"] > base["high"]
    assert tuned["accuracy"] - base["accuracy"] >= 0.25
    assert arms["student, open book"]["accuracy"] > base["accuracy"]


def test_the_served_model_gives_the_answers_of_its_exam(demo: Project) -> None:
    """Same weights, same quantisation, same tokens, greedy: what was examined is what is served."""
    questions: list[dict] = exam(demo)["questions"]  # type: ignore[type-arg,assignment]
    right = [q for q in questions if q["arms"]["tuned"]["value"] == 1][:5]
    with served(demo) as url:
        client = openai.OpenAI(base_url=url, api_key="none")
        assert [m.id for m in client.models.list()] == ["demo"]
        answers = [
            client.chat.completions.create(
                model="demo", messages=[{"role": "user", "content": q["question"]}], max_tokens=40
            )
            for q in right
        ]
    said = [a.choices[0].message.content for a in answers]
    assert sum(s == q["arms"]["tuned"]["answer"] for s, q in zip(said, right, strict=True)) >= len(right) - 1
