"""Recipes: strict, merged as said, and every problem at once with its line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.runs.project import Project

from gristmill.core.errors import ConfigError
from gristmill.curate.stages import STAGES as CURATE
from gristmill.generate.stages import STAGES as GENERATE
from gristmill.runs.plan import make_plan
from gristmill.runs.schema import recipe_schema
from gristmill.runs.source import RecipeError, read_source

GOOD = """\
name: good
models:
  writer: {provider: openai, base_url: http://127.0.0.1:1/v1, model: m}
stages:
  read: {kind: ingest.read, paths: [documents]}
  chunks: {kind: ingest.chunk, tokens: 60}
  questions: {kind: generate.qa, model: writer}
"""
SHIPPED = sorted(Path(__file__).parents[2].glob("recipes/*.yaml"))


def problems(path: Path, *sets: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        make_plan(path, list(sets))
    return [str(p) for p in caught.value.problems]


def test_a_plan_is_typed_and_in_order(project: Project) -> None:
    plan = make_plan(project.write("r.yaml", GOOD))
    assert [n.name for n in plan.nodes] == ["read.files", "read", "chunks", "questions"]
    assert plan.node("questions").needs == ("chunks",)
    assert plan.node("questions").roles == ("writer",)


def test_all_problems_come_at_once_with_file_line_and_what_to_do(project: Project) -> None:
    text = """\
name: bad
seed: -1
models:
  writer: {provider: openai, base_url: not a url, model: m, api_key: sk-secret}
stages:
  read: {kind: ingest.read, paths: [nowhere/]}
  chunks: {kind: ingest.chunk, tokenz: 60}
  questions: {kind: generate.qaa, model: writer}
  more: {kind: generate.qa, model: judge, needs: [chunk]}
  again: {kind: curate.dedup}
  fill: {kind: generate.facts, model: "???"}
"""
    found = problems(project.write("bad.yaml", text))
    for line, words in [
        (2, "seed"),
        (4, "not an address"),
        (4, "env:NAME"),
        (7, "unknown key `tokenz`. Did you mean `tokens`?"),
        (8, "unknown kind `generate.qaa`. Did you mean generate.qa?"),
        (11, "placeholder"),
        (6, "no such file or folder: nowhere/"),
        (9, "no model is called `judge`"),
        (9, "names no other stage: chunk"),
    ]:
        assert any(f"bad.yaml:{line}:" in f and words in f for f in found), (line, words, found)
    assert not any("sk-secret" in f for f in found)


def test_graph_problems_name_both_sides(project: Project) -> None:
    text = GOOD + "  wrong: {kind: curate.dedup, needs: [chunks]}\n  gone: {kind: curate.dedup, needs: [nobody]}\n"
    text += "  a: {kind: curate.dedup, needs: [b]}\n  b: {kind: curate.dedup, needs: [a]}\n"
    found = problems(project.write("r.yaml", text))
    assert any("names no other stage: nobody" in f for f in found)
    assert any("wait for each other: a, b" in f for f in found)
    without = GOOD + "  wrong: {kind: curate.dedup, needs: [chunks]}\n"
    [found_types] = problems(project.write("r.yaml", without))
    assert "curate.dedup takes Sample, but chunks (ingest.chunk) gives Chunk" in found_types


def test_two_exports_of_one_name_are_refused_with_both_named(project: Project) -> None:
    text = GOOD + "  plain: {kind: curate.export}\n  whole: {kind: curate.export, formats: [masked]}\n"
    path = project.write("r.yaml", text)
    [found] = problems(path)
    assert "r.yaml:9: plain and whole both write exports/dataset" in found and "Set name of plain or of whole" in found
    for verb in ("check", "run"):
        assert found in project.run(verb, path, code=2).stderr
    assert make_plan(path, ["stages.whole.name=whole"])


def test_paths_prompts_models_and_variables_are_looked_up(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_URL", raising=False)
    text = """\
name: bad
models:
  writer: {provider: openai, base_url: env:NO_SUCH_URL, model: m}
  student: {provider: local, model: no-such-model}
  tuned: {from: chunks}
stages:
  read: {kind: ingest.read, paths: [nowhere/]}
  chunks: {kind: ingest.chunk, tokens: 60}
  questions: {kind: generate.qa, model: writer, prompts: {qa_direct: mine.md, other: mine.md}}
  facts: {kind: generate.facts, model: student, needs: [chunks]}
  more: {kind: generate.facts, model: tuned, needs: [chunks]}
"""
    project.write("mine.md", "no role at the top {{x}}")
    found = "\n".join(problems(project.write("bad.yaml", text)))
    assert "bad.yaml:3: the environment variable NO_SUCH_URL is not set" in found
    assert "bad.yaml:4: the model no-such-model" in found
    assert "bad.yaml:5: `from: chunks` names no stage that trains a model" in found
    assert "bad.yaml:7: no such file or folder: nowhere/" in found
    assert "does not start with a role" in found
    assert "generate.qa has no prompt `other`" in found
    project.write("mine.md", "@user\n{{sentences}} {{everything}}")
    found = "\n".join(problems(project.write("bad.yaml", text)))
    assert "mine.md uses unknown names: everything. Known: " in found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a\n- b\n", "a recipe is a mapping"),
        ("name: [\n", "not valid YAML"),
        ("name: a\nname: b\nstages: {read: {kind: ingest.read, paths: [documents]}}\n", "`name` stands twice"),
        ("name: a\nstages: {}\n", "at least one stage"),
        ("name: Big Name\nstages: {read: {kind: ingest.read, paths: [documents]}}\n", "is no name"),
        ("name: a\nstagez: {}\n", "unknown key `stagez`. Did you mean `stages`?"),
        ("name: a\nstages: {read: 5}\n", "is a mapping"),
        ("name: a\nstages: {read: {paths: [documents]}}\n", "a stage needs a `kind`"),
        ("name: a\nstages: {c: {kind: curate.dedup}}\n", "needs the output of a stage before it"),
    ],
)
def test_malformed_recipes_are_refused(project: Project, text: str, words: str) -> None:
    assert words in "\n".join(problems(project.write("r.yaml", text)))


def test_aliases_cannot_multiply_without_end(project: Project) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    with pytest.raises(ConfigError, match="too many values"):
        read_source(project.write("bomb.yaml", "\n".join(lines)))


def test_extends_merges_by_name_null_removes_after_places(project: Project) -> None:
    project.write("base.yaml", GOOD + "  clean: {kind: curate.dedup, near: false}\n")
    above = """\
extends: base.yaml
name: above
stages:
  chunks: {tokens: 90}
  clean: {kind: curate.filter}
  facts: {kind: generate.facts, model: writer, after: chunks}
  questions: null
"""
    data = read_source(project.write("above.yaml", above)).data
    assert list(data["stages"]) == ["read", "chunks", "facts", "clean"]
    assert data["stages"]["chunks"] == {"kind": "ingest.chunk", "tokens": 90}
    assert data["stages"]["clean"] == {"kind": "curate.filter"}  # another kind starts afresh
    assert data["name"] == "above" and "extends" not in data


def test_a_recipe_may_not_extend_itself(project: Project) -> None:
    project.write("a.yaml", "extends: b.yaml\n")
    with pytest.raises(ConfigError, match="extends itself"):
        read_source(project.write("b.yaml", "extends: a.yaml\n"))


def test_set_is_typed_and_wins(project: Project) -> None:
    path = project.write("r.yaml", GOOD)
    plan = make_plan(path, ["stages.chunks.tokens=99", 'stages.read.paths=["documents/orvale.md"]', "budget.calls=3"])
    assert plan.recipe.stages["chunks"].tokens == 99  # type: ignore[attr-defined]
    assert plan.recipe.stages["read"].paths == ["documents/orvale.md"]  # type: ignore[attr-defined]
    assert plan.recipe.budget.calls == 3
    assert "--set stages.chunks.tokens=many" in problems(path, "stages.chunks.tokens=many")[0]
    assert "write it as --set a.b=value" in problems(path, "stages.chunks.tokens")[0]
    assert "holds a value, not more keys" in problems(path, "name.x=1")[0]


def test_the_schema_has_a_closed_branch_for_every_kind() -> None:
    schema = recipe_schema()
    branches = {b["title"]: b for b in schema["properties"]["stages"]["additionalProperties"]["anyOf"][0]["oneOf"]}
    assert {"ingest.read", "generate.qa", "curate.split", "train.sft", "evaluate.exam"} <= branches.keys()
    assert all(b["additionalProperties"] is False for b in branches.values())
    assert branches["ingest.chunk"]["properties"]["tokens"]["type"] == "integer"
    named = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(schema)))
    assert named and named <= schema["$defs"].keys()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.name)
def test_every_shipped_recipe_is_sound(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once what only its user can know is given: an address, a key, a model's name."""
    monkeypatch.setenv("LLM_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("LLM_KEY", "k")
    models = read_source(path).data.get("models", {})
    blanks = [
        f"models.{role}.{key}=m" for role, spec in models.items() for key, value in spec.items() if value == "???"
    ]
    assert make_plan(path, blanks).nodes


def test_every_kind_that_writes_or_sifts_stands_in_a_shipped_recipe() -> None:
    shown = {stage["kind"] for path in SHIPPED for stage in read_source(path).data["stages"].values()}
    assert {*GENERATE, *CURATE} - shown == set()


@pytest.mark.parametrize("language", ["de", "German", "german", "gsw", "Swiss German", "pt-BR", "de_BE", "tlh", "deu"])
def test_a_language_is_named_by_code_or_in_english(project: Project, language: str) -> None:
    make_plan(project.write("r.yaml", GOOD), [f"stages.questions.language={language}"])


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("generate.qa", ""),
        ("generate.ask", ", prompt: Hello"),
        ("generate.correction", ", needs: [questions]"),
        ("generate.magpie", ", needs: null"),
        ("generate.self_instruct", ""),
    ],
)
@pytest.mark.parametrize(
    ("language", "hint"), [("Germna", "mean German?"), ("Klingonese", "mean Klingon?"), ("qqx", "Give its ISO 639")]
)
def test_no_other_language_is_paid_for(project: Project, kind: str, more: str, language: str, hint: str) -> None:
    stage = f"  told: {{kind: {kind}, model: writer, language: {language}{more}}}\n"
    (found,) = [each for each in problems(project.write("r.yaml", GOOD + stage)) if "language" in each]
    assert f"{language} is no language" in found and hint in found and ":8:" in found
