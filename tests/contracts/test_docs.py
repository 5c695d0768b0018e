"""Docs that cannot lie: links lead somewhere, commands exist, and every shipped recipe is sound."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(?:^|[`\s/])gristmill ([a-z]+)\b")
TARGET = re.compile(r"\bmake ([a-z](?:[a-z-]|\d\.\d)*)\b")
GRISTMILL = Path(sys.executable).with_name("gristmill")


def readable(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_readme_fits_on_a_screen_or_two() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=readable)
def test_links_lead_somewhere(page: Path) -> None:
    links = [link.partition("#")[0] for link in LINK.findall(page.read_text("utf-8"))]
    local = [link for link in links if link and "://" not in link and not link.startswith("mailto:")]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=readable)
def test_commands_exist(page: Path) -> None:
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", page.read_text("utf-8"), re.DOTALL))
    shown = subprocess.run([GRISTMILL, "--help"], capture_output=True, text=True, check=True).stdout
    verbs = set(re.findall(r"^\s+(\w+) ", shown.partition("Commands:")[2], re.MULTILINE))
    targets = set(re.findall(r"^([a-z0-9.-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert set(COMMAND.findall(code)) - verbs == set()
    assert set(TARGET.findall(code)) - targets == set()


@pytest.mark.parametrize("recipe", RECIPES, ids=readable)
def test_every_recipe_is_sound(recipe: Path) -> None:
    """Once what only its user can know is given: an address, a key, a model's name."""
    text = recipe.read_text("utf-8")
    named = dict.fromkeys(re.findall(r"env:([A-Za-z_]\w*)", text), "http://127.0.0.1:9/v1")
    blanks = [f"--set=models.{role}.model=m" for role in re.findall(r'^  (\w+): \{.*"\?\?\?"', text, re.MULTILINE)]
    checked = subprocess.run(
        [GRISTMILL, "check", recipe, *blanks], cwd=ROOT, env={**os.environ, **named}, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_readmes_recipe_is_sound_as_it_stands(tmp_path: Path) -> None:
    """At any server, whatever its model is called: an address and a key are all that is asked for."""
    [recipe] = re.findall(r"```yaml\n(name: .*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    [rows] = re.findall(r"```yaml\n(  rows: .*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    head = recipe.partition("stages:")[0]
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "mill.txt").write_text("The mill of Orvale was built in 1822.", "utf-8")
    (tmp_path / "letters.csv").write_text("text\nThe crane is broken.\n", "utf-8")
    named = {"LLM_URL": "https://llm.example.org/v1", "LLM_KEY": "none"}
    for number, text in enumerate([recipe, f"{head}stages:\n{rows}"]):
        (tmp_path / f"{number}.yaml").write_text(text, "utf-8")
        checked = subprocess.run(
            [GRISTMILL, "check", f"{number}.yaml"],
            cwd=tmp_path, env={**os.environ, **named}, capture_output=True, text=True,
        )  # fmt: skip
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_example_environment_and_the_first_recipe_fit_together(tmp_path: Path) -> None:
    """As `gristmill init` leaves them, once the model is named."""
    folder = tmp_path / "mine"
    subprocess.run([GRISTMILL, "init", folder], check=True, capture_output=True)
    (folder / "documents" / "mill.txt").write_text("The mill of Orvale was built in 1822.", "utf-8")
    named = dict(re.findall(r"^(\w+)=(.*)$", (folder / ".env.example").read_text("utf-8"), re.MULTILINE))
    checked = subprocess.run(
        [GRISTMILL, "check", "recipe.yaml", "--set", "models.writer.model=m"],
        cwd=folder, env={**os.environ, **named}, capture_output=True, text=True,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_reference_is_current(tmp_path: Path) -> None:
    fresh = tmp_path / "reference.md"
    subprocess.run([sys.executable, ROOT / ".ci" / "reference.py", fresh], check=True)
    assert fresh.read_text("utf-8") == (ROOT / "docs" / "reference.md").read_text("utf-8"), "run: make docs"


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*/*.md")), ids=lambda page: page.stem)
def test_what_a_page_shows_of_a_recipe_is_yaml(page: Path) -> None:
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
        assert yaml.safe_load(block), block
