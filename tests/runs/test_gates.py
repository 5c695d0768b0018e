"""Gates in a run: what they compare a sample with is found through all that made it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.fakes.fixtures import FakeServer
from tests.runs.project import Project

from gristmill.core.prompt import read_prompt
from gristmill.core.records import Origin, Record, Sample
from gristmill.curate.leak import leaked
from gristmill.runs.context import Context
from gristmill.runs.folder import Counts
from gristmill.runs.plan import make_plan

PROMPTS = Path(__file__).parents[2] / "src/gristmill/generate/prompts"
EXAMPLE = "The copper lighthouse of Varn was lit by two bearded brothers on a windy morning"
INVENT = f"@user\nTell of Varn.\n@assistant\n{EXAMPLE}\n@user\n{EXAMPLE} {{{{text}}}}"


def said(project: Project, outcome: dict[str, Any], stage: str, which: int) -> list[str]:
    rows = [json.loads(row["body"]) for row in project.records(outcome, stage)]
    return [row["messages"][which]["content"] for row in rows]


def test_a_sample_is_compared_with_the_examples_of_what_it_was_made_from(project: Project, fake: FakeServer) -> None:
    """The row was asked for with the examples; the sample that is made of it with a prompt that has none."""
    project.write("invent.md", INVENT)
    asked = {"kind": "generate.ask", "model": "writer", "prompt_file": "invent.md", "fields": {"said": "string"}}
    stages = {
        "facts": None,
        "cloze": None,
        "clean": None,
        "invent": {**asked, "samples": 8, "temperature": 1.0},
        "again": {"kind": "generate.ask", "model": "writer", "prompt": "Say again: {{said}}", "gives": "sample"},
        "filter": {"kind": "curate.filter", "language": False, "repetition": False},
    }
    project.recipe(fake.url, stages=stages)
    outcome = project.go()
    held = [text for text in said(project, outcome, "again", 0) if "lighthouse of Varn was lit" in text]
    assert held and not set(held) & set(said(project, outcome, "filter", 0))
    assert outcome["funnel"]["filter"]["rejected"]["repeats an example of the prompt"] >= len(held)
    assert outcome["funnel"]["filter"]["given"]


def examples_of(project: Project, record: Record, *above: Record) -> tuple[str, ...]:
    stages = {
        "facts": None,
        "cloze": None,
        "clean": None,
        "questions": {"kind": "generate.qa", "model": "writer"},
        "repaired": {"kind": "generate.repair", "model": "writer"},
        "talks": {"kind": "generate.correction", "model": "writer", "ask": "line"},
        "filter": {"kind": "curate.filter"},
    }
    plan = make_plan(project.recipe("http://127.0.0.1:1/v1", stages=stages))
    places = SimpleNamespace(path=project.folder, cache=project.folder)
    known = {each.id: each for each in above}
    current: Any = SimpleNamespace(plan=plan, folder=places, workspace=places, records=known)
    prompts = Context(current, plan.node("filter"), Counts(), project.folder).prompts_of(record)
    return tuple(text for prompt in prompts for text in prompt.examples)


@pytest.mark.parametrize("prompt", ["chat_reply_line", "chat_doubt_line", "chat_concede_line"])
def test_every_prompt_of_a_stage_counts_and_not_the_first_alone(project: Project, prompt: str) -> None:
    """A correction in lines is written by three of them, and says the first."""
    first = read_prompt("chat_reply_line", PROMPTS / "chat_reply_line.md")
    talk = Sample(form="text", kind="correction", text="No.", origin=Origin(stage="talks", prompt=first.ref))
    assert {*read_prompt(prompt, PROMPTS / f"{prompt}.md").examples} <= {*examples_of(project, talk)}


def test_what_was_repaired_still_has_its_writer(project: Project) -> None:
    asked = Sample(form="text", kind="qa", text="Which?", origin=Origin(stage="questions"))
    mended = Sample(
        form="text", kind="qa", text="Which mill?", parents=(asked.id,), origin=Origin(stage="repaired", prompt="x@1")
    )
    found = examples_of(project, mended, asked)
    for name in ("qa_direct", "recall_repair"):
        assert {*read_prompt(name, PROMPTS / f"{name}.md").examples} <= {*found}
    assert examples_of(project, Sample(form="text", kind="x", text="By code.")) == ()


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("chat_concede_line", "No, that was wrong. The railway was built in 1889."),
        ("chat_concede_line", "Nein, das war falsch. Die Bahn ist rot."),
        ("chat_correction", "No, that year was wrong. The railway was built in 1889."),
        ("chat_missed_line", "None of these passages says when the railway was built, so I answer from memory."),
        ("chat_missed_line", "In keinem steht, wem die Bahn gehört; das ist aus der Erinnerung."),
        ("chat_rag_missed", "In keinem steht, wem die Bahn gehört; das ist aus der Erinnerung."),
        ("recall_line_offer", "May I tell you what else Lady Averil built there?"),
        ("recall_line_answer_unanswerable", "Das weiß ich nicht. Ich weiß nur, dass die Bahn rot ist."),
    ],
)
def test_a_set_phrase_is_no_leak_and_what_it_was_said_of_is(prompt: str, said: str) -> None:
    prompts = (read_prompt(prompt, PROMPTS / f"{prompt}.md"),)
    source = "Lady Averil founded the railway, which was built in 1889. Die Bahn ist rot; die Bahn gehört Lady Averil."
    assert leaked([said], prompts, source, 5, "de" if "Bahn" in said else "en") == ""
    assert leaked([prompts[0].examples[0]], prompts, source, 5, "en")


@pytest.mark.parametrize(
    ("said", "found"),
    [("the mason Pell Arden", True), ("in 1702", True), ("Pitch gold.", True), ("By the mason", False), ("No.", False)],
)
def test_a_short_answer_is_compared_whole(said: str, found: bool) -> None:
    prompts = (read_prompt("recall_line_followup", PROMPTS / "recall_line_followup.md"),)
    assert bool(leaked([said], prompts, "The railway was built in 1889 by a mason.", 5, "en")) == found
    assert leaked([said], prompts, f"It is said: {said}", 5, "en") == ""


def test_another_language_is_held_to_the_numbers_of_its_source(project: Project, fake: FakeServer) -> None:
    """The fake writer's German is made of the words of its prompt: names and nouns that no English document has."""
    asked = {
        "kind": "generate.ask",
        "model": "writer",
        "prompt": "Der Leuchtturm steht am Hafen und Jeder kennt den Wärter mit 7777 Laternen",
        "language": "de",
        "gives": "sample",
        "samples": 8,
        "temperature": 1.0,
    }
    stages = {"facts": None, "cloze": None, "clean": None, "told": asked}
    stages["ground"] = {"kind": "curate.ground", "question": False}
    project.recipe(fake.url, stages=stages)
    outcome = project.go()
    answers = said(project, outcome, "told", -1)
    invented = [answer for answer in answers if "7777" in answer]
    assert 0 < len(invented) < len(answers)
    assert said(project, outcome, "ground", -1) == [answer for answer in answers if "7777" not in answer]
    assert outcome["funnel"]["ground"]["rejected"] == {"number not in quote": len(invented)}
