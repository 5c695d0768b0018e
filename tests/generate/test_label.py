"""Labels by rules, what is labelled next, and a classifier that learns from them, round after round."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient
from tests.fakes.fixtures import FakeServer
from tests.generate.conftest import Context, chunk_of
from tests.train.conftest import make_model_folder

from gristmill.core.ask import Answer, Model, Parsed, Usage
from gristmill.core.errors import InputError
from gristmill.core.intervals import wilson
from gristmill.core.records import Draft, Record, Report, Sample
from gristmill.evaluate.agreement import agreement
from gristmill.generate.label import choose, rules
from gristmill.generate.label.label import run as label
from gristmill.generate.label.stages import LabelConfig, RulesConfig
from gristmill.generate.label.texts import GUESS, LABEL, SOURCE
from gristmill.models.classifier import Classifier
from gristmill.runs.execute import execute
from gristmill.runs.exports import trained
from gristmill.runs.folder import RunFolder
from gristmill.runs.plan import make_plan
from gristmill.runs.workspace import Workspace
from gristmill.serve.sorter import make_sorter

CLASSES = ("zero", "one", "two")
RULES = Draft(
    kind="rules",
    data={
        "description": "Notes",
        "classes": dict.fromkeys(CLASSES, ""),
        "rules": {name: f"It is about {name}." for name in CLASSES},
        "borders": [],
        "otherwise": "zero",
    },
)
ROWS = [Draft(kind="row", data={"text": f"note {number} of the desk", "page": number}) for number in range(60)]


def config(**changes: Any) -> LabelConfig:
    return LabelConfig.model_validate({"kind": "generate.label", "model": "m", "count": 6, "test": 3, **changes})


def chosen(*more: Record, **changes: Any) -> list[Draft]:
    ctx: Any = SimpleNamespace(seed=3, stage="label", count=lambda **_: None)
    return list(choose.run(config(**changes), [RULES, *ROWS, *more], ctx))  # type: ignore[arg-type]


def labelled(drafts: list[Draft], name: str = "zero") -> list[Sample]:
    return [
        Sample(
            form="labelled",
            kind=LABEL,
            text=str(draft.data["text"]),
            label=name,
            marks={"split": draft.data["split"], SOURCE: draft.data[SOURCE]},
        )
        for draft in drafts
    ]


def guess(row: Draft, name: str, margin: float) -> Sample:
    marks = {SOURCE: row.id, "confidence": 0.5 + margin / 2, "margin": margin}
    return Sample(form="labelled", kind=GUESS, text=str(row.data["text"]), label=name, marks=marks)


def sources(drafts: list[Draft], split: str) -> list[str]:
    return [str(draft.data[SOURCE]) for draft in drafts if draft.data["split"] == split]


def test_no_text_is_labelled_twice_and_what_is_tested_is_never_trained_on() -> None:
    labels: list[Sample] = []
    train: set[str] = set()
    test: set[str] = set()
    for _ in range(20):
        found = chosen(*labels, *(guess(row, "one", 0.1) for row in ROWS if train))
        assert len(sources(found, "train")) <= 6 and len(sources(found, "test")) <= 3
        assert not (train | test) & {str(draft.data[SOURCE]) for draft in found}
        train |= set(sources(found, "train"))
        test |= set(sources(found, "test"))
        labels += labelled(found)
    assert not train & test and train | test == {row.id for row in ROWS}
    assert chosen(*labels) == []
    assert all(draft.parents == (str(draft.data[SOURCE]), RULES.id) for draft in chosen())


def test_the_same_words_in_another_row_are_not_trained_on_where_they_are_tested() -> None:
    """A table with every row three times over, in other letters and spaces too."""
    again = [
        Draft(kind="row", data={"text": text, "page": 100 + number})
        for row in ROWS
        for number, text in enumerate((str(row.data["text"]).upper(), f"{row.data['text']}  "))
    ]
    found = chosen(*again, count=100, test=50)
    words = {split: [" ".join(str(d.data["text"]).casefold().split()) for d in found if d.data["split"] == split]
             for split in ("train", "test")}  # fmt: skip
    assert words["test"] and not set(words["train"]) & set(words["test"])
    assert len(words["train"]) + len(words["test"]) == len(ROWS)


def test_what_is_tested_does_not_depend_on_what_the_classifier_guesses_or_on_the_order_of_texts() -> None:
    plain, guessed = chosen(), chosen(*(guess(row, "one", row.data["page"] / 60) for row in ROWS), pick="uncertain")  # type: ignore[operator]
    assert sources(plain, "test") == sources(guessed, "test")
    ctx: Any = SimpleNamespace(seed=3, stage="label", count=lambda **_: None)
    assert list(choose.run(config(), [*reversed(ROWS), RULES], ctx)) == plain


def test_uncertain_takes_the_least_sure_and_balanced_evens_the_classes_out() -> None:
    sure = {row.id: (number * 7 % 60) / 60 for number, row in enumerate(ROWS)}
    uncertain = sources(chosen(*(guess(row, "one", sure[row.id]) for row in ROWS), pick="uncertain"), "train")
    others = {row.id for row in ROWS} - set(uncertain) - set(sources(chosen(test=30, count=60), "test"))
    assert [sure[each] for each in uncertain] == sorted(sure[each] for each in uncertain)
    assert max(sure[each] for each in uncertain) < 0.5 and others
    names = {row.id: "zero" if number < 45 else CLASSES[number % 3] for number, row in enumerate(ROWS)}
    guesses = [guess(row, names[row.id], 0.5) for row in ROWS]
    assert Counter(names[each] for each in sources(chosen(*guesses), "train")) == dict.fromkeys(CLASSES, 2)
    many = labelled(chosen(count=4, test=1), "one")  # four of class one are there: the others come first
    assert "one" not in {names[each] for each in sources(chosen(*guesses, *many, count=4, test=1), "train")}


def test_labels_without_rules_are_refused() -> None:
    ctx: Any = SimpleNamespace(seed=3, stage="label", count=lambda **_: None)
    with pytest.raises(InputError, match="takes the rules of one description, and has 0"):
        list(choose.run(config(), ROWS, ctx))


def test_agreement_counts_every_class_with_its_interval() -> None:
    """The first class too: an index of 0 is a class like any other."""
    pairs = [("zero", "zero")] * 6 + [("zero", "one")] * 2 + [("one", "one")] * 8 + [("two", "two")] * 4
    data: dict[str, Any] = agreement(pairs)
    assert data["n"] == 20 and data["right"] == 18 and (data["low"], data["high"]) == wilson(18, 20)
    assert data["f1"] == {"one": 16 / 18, "two": 1.0, "zero": 12 / 14}
    assert data["macro_f1"] == pytest.approx((16 / 18 + 1 + 12 / 14) / 3)
    chance = (8 * 6 + 8 * 10 + 4 * 4) / 400
    assert data["kappa"] == pytest.approx((0.9 - chance) / (1 - chance))
    assert data["confused"] == {"zero for one": 2}
    assert agreement([("zero", "zero")])["kappa"] is None


@pytest.mark.parametrize("ask", ["structured", "line"])
async def test_rules_are_written_for_every_class_and_labels_are_of_them(model: Model, ask: str) -> None:
    settings = RulesConfig.model_validate(
        {"kind": "generate.rules", "model": "m", "description": "Notes", "classes": list(CLASSES), "ask": ask}
    )
    [brief] = rules.brief(settings, [], Context(None))  # type: ignore[arg-type]
    assert isinstance(brief, Draft)
    [written] = await rules.run(settings, brief, Context(model, brief))
    made: Any = written.data
    assert list(made["rules"]) == list(CLASSES) and all(made["rules"].values()) and written.origin
    chunk = chunk_of()
    ctx: Any = SimpleNamespace(seed=3, stage="label", count=lambda **_: None)
    [draft] = choose.run(config(test=0), [chunk, written], ctx)
    assert isinstance(draft, Draft)
    [sample] = await label(config(), draft, Context(model, chunk, draft))
    assert sample.label in CLASSES and sample.text == chunk.text and sample.parents == (draft.id,)
    assert sample.quotes[0].text == chunk.text and sample.quotes[0].start == chunk.start
    assert sample.marks == {"split": "train", SOURCE: chunk.id} and sample.origin


class Repeats:
    """Stands at the protocol, and says the same whatever it is asked."""

    async def ask(self, _messages: Any, parse: Any, **_: Any) -> Parsed[Any]:
        answer = Answer("The note is about it.", "stop", Usage(), "key", "repeats")
        return Parsed(parse(answer.text), answer, ("key",))


async def test_rules_that_tell_nothing_apart_are_counted() -> None:
    settings = RulesConfig(
        kind="generate.rules", model="m", description="Notes", classes=dict.fromkeys(CLASSES, ""), ask="line"
    )
    ctx: Any = Context(Repeats())  # type: ignore[arg-type]
    [brief] = rules.brief(settings, [], ctx)
    await rules.run(settings, brief, ctx)  # type: ignore[arg-type]
    assert ctx.counts["classes with the rule of another"] == 2


@pytest.fixture
def project(tmp_path: Path, fake: FakeServer) -> Path:
    rows = "\n".join(f'{{"text": "note {n}: {CLASSES[n % 3] * 3} of the desk"}}' for n in range(36))
    (tmp_path / "notes.jsonl").write_text(rows, "utf-8")
    (tmp_path / "student").mkdir()
    make_model_folder(tmp_path / "student")
    taught = {"context": 64, "batch": 256, "steps": 2, "threads": 1, "warmup_steps": 0}
    recipe = {
        "name": "sorting",
        "models": {
            "writer": {"provider": "openai", "base_url": fake.url, "model": "fake"},
            "student": {"provider": "local", "model": "student"},
            "sorter": {"from": "tune"},
        },
        "stages": {
            "texts": {"kind": "ingest.rows", "paths": ["notes.jsonl"]},
            "rules": {"kind": "generate.rules", "model": "writer", "description": "Notes", "classes": list(CLASSES)},
            "label": {
                "kind": "generate.label",
                "model": "writer",
                "count": 5,
                "test": 4,
                "needs": ["texts", "rules", "label.before", "guess.before"],
            },
            "tune": {
                "kind": "train.classify",
                "model": "student",
                "needs": ["label.all"],
                "labels": list(CLASSES),
                **taught,
            },
            "guess": {"kind": "generate.classify", "model": "sorter", "needs": ["texts"], "context": 64},
            "agree": {"kind": "evaluate.agreement", "needs": ["label.all", "guess"]},
            "sorted": {"kind": "generate.classify", "model": "sorter", "needs": ["texts"], "context": 64},
        },
        "repeat": {"stages": ["label", "tune", "guess", "agree"], "times": 3, "until": "agree.n >= 8"},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), "utf-8")
    return path


def test_a_classifier_is_bootstrapped_and_served(project: Path) -> None:
    """Three classes, the first of them too; the target is met in the second round."""
    outcome = execute(make_plan(project), Workspace(project.parent / "ws"))
    assert outcome.state == "finished", outcome.error
    folder = RunFolder(outcome.folder)
    outputs = folder.outputs()
    assert set(outcome.summary["skipped"].values()) == {"agree.2.n is 8"}
    first, second = (list(outputs[name].only(Sample)) for name in ("label", "label.2"))
    assert Counter(s.marks["split"] for s in first) == Counter(s.marks["split"] for s in second)
    assert Counter(s.marks["split"] for s in first) == {"train": 5, "test": 4}
    assert not {s.marks[SOURCE] for s in first} & {s.marks[SOURCE] for s in second}
    assert "zero" in {s.label for s in first + second}
    [report] = outputs["agree.2"].only(Report)
    assert report.data["n"] == 8 and set(report.parents) <= {s.id for s in first + second}
    assert not any(outputs["tune.3"]) and any(outputs["tune.2"])

    found = {s.text: s for s in outputs["sorted"].only(Sample)}
    assert len(found) == 36
    classifier = Classifier(trained(folder, None), context=64)
    assert classifier.labels == CLASSES and outputs["sorted"].count == 36
    with TestClient(make_sorter(classifier, model_id="sorting"), base_url="http://127.0.0.1") as client:
        answer = client.post("/classify", json={"input": list(found)[:3]}).json()
        one = client.post("/classify", json={"input": "note", "model": "sorting"}).json()
        wrong = client.post("/classify", json={"input": []})
    for text, row in zip(found, answer["data"], strict=False):
        assert row["label"] == found[text].label and row["num_classes"] == 3
        shares = dict(zip(CLASSES, (round(share, 4) for share in row["probs"]), strict=True))
        assert shares == found[text].marks["classes"]
    assert sum(one["data"][0]["probs"]) == pytest.approx(1) and one["usage"]["prompt_tokens"] > 0
    assert wrong.status_code == 422 and wrong.json()["error"]["code"] == "invalid_request"
