"""What a run asked, taken up again as training data: by the front door, from the store, and never asked anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.fakes.fixtures import FakeServer, fake_server
from tests.generate.conftest import Context, chunk_of
from tests.runs.project import Project

from gristmill.core.errors import InputError
from gristmill.core.records import Fact, Origin, Quote, Record, Sample
from gristmill.core.stage import Dropped
from gristmill.generate.chat.harvest import accepted_of, run
from gristmill.generate.chat.stages import HarvestConfig


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with fake_server() as fake:
        yield fake


def test_a_runs_prompts_and_answers_teach_as_they_were(tmp_path: Path, server: FakeServer) -> None:
    server.fresh(pinvalid=0.4, bad_until_turns=6)
    project = Project(tmp_path)
    project.add("Orvale", "Tessmoor", "Kilbrack")
    project.recipe(server.url, stages={"harvest": {"kind": "generate.harvest", "examples": "kept"}})
    outcome = project.go()
    asked = server.stats()["calls"]
    facts = {row["id"]: orjson.loads(row["body"]) for row in project.records(outcome, "facts")}
    cloze = {row["id"]: row["parents"] for row in project.records(outcome, "cloze")}
    kept = {parent for row in project.records(outcome, "clean") for parent in cloze[row["id"]]}
    rows = project.records(outcome, "harvest")
    assert rows and asked > len(rows), "some answers were invalid and asked for again"
    assert sorted(parent for row in rows for parent in row["parents"]) == sorted(
        kept
    )  # what was dropped teaches nothing
    for row in rows:
        body = orjson.loads(row["body"])
        roles = [m["role"] for m in body["messages"]]
        assert roles == ["system", *["user", "assistant"] * 3] and body["kind"] == "harvest"
        assert [m["train"] for m in body["messages"]] == [False] * 6 + [True]
        assert not any("cannot be used" in m["content"] for m in body["messages"])
        answer = orjson.loads(body["messages"][-1]["content"])
        statements = [each["statement"].strip() for each in answer["facts"]]
        assert all(facts[parent]["statement"] in statements for parent in row["parents"])
        assert facts[row["parents"][0]]["quote"]["text"] in [quote["text"] for quote in body["quotes"]]
    assert "calls" not in outcome["funnel"]["harvest"]["more"]


CHUNK = chunk_of()
QUOTE = Quote(text="x", start=0, end=1, path="varn.md")


def call(key: str, attempt: int = 0, *, shots: int = 3, **more: Any) -> dict[str, Any]:
    talk = [{"role": role, "content": f"{role} {n}"} for n in range(shots) for role in ("user", "assistant")]
    messages = [{"role": "system", "content": "You write."}, *talk, {"role": "user", "content": f"asks {key}"}]
    if attempt:
        messages += [{"role": "assistant", "content": "bad"}, {"role": "user", "content": "again"}]
    return {"key": key, "request": {"attempt": attempt, "messages": messages, **more}, "reply": {"text": f"says {key}"}}


class Store(Context):
    """A context whose store holds some answers."""

    stage = "harvest"

    def __init__(self, calls: list[dict[str, Any]], *records: Record) -> None:
        super().__init__(None, *records)
        self.stored = {each["key"]: each for each in calls}

    def calls(self, keys: list[str]) -> list[dict[str, Any]]:
        return [self.stored[key] for key in keys if key in self.stored]

    def progress(self, done: float, total: float) -> None: ...


def fact(statement: str, *calls: str, stage: str = "facts") -> Fact:
    origin = Origin(stage=stage, prompt="facts@1", model="m", calls=calls)
    return Fact(statement=statement, quote=QUOTE, language="en", parents=(CHUNK.id,), origin=origin)


def harvested(calls: list[dict[str, Any]], *records: Record, **config: Any) -> tuple[list[Any], Store]:
    store = Store(calls, CHUNK, *records)
    return list(run(HarvestConfig(kind="generate.harvest", **config), records, store)), store  # type: ignore[arg-type]


def test_of_an_answer_asked_for_again_the_first_prompt_and_the_last_words_are_taken() -> None:
    calls = [call("a"), call("b", 1), call("c"), call("d", prompt="Once", messages=None)]
    pairs = [(asked["key"], accepted["key"]) for asked, accepted in accepted_of(calls[:3])]
    assert pairs == [("a", "b"), ("c", "c")]
    assert list(accepted_of([call("b", 1)])) == []  # its prompt is gone
    del calls[3]["request"]["messages"]
    assert list(accepted_of(calls[3:])) == []
    (first, second), _ = harvested(calls[:3], fact("One.", "a", "b", "c"))
    assert [m.content for m in first.messages] == ["You write.", "asks a", "says b"]
    assert [m.content for m in second.messages] == ["You write.", "asks c", "says c"]
    assert (first.origin.calls, first.origin.prompt, first.origin.stage) == (("b",), "facts@1", "harvest")
    assert second.origin.prompt is None  # by which of several prompts it was asked is not known
    assert first.marks == {"step": "facts"} and first.quotes == (QUOTE,)


@pytest.mark.parametrize(
    ("gone", "taken"), [("a", ["d", "e"]), ("b", ["d", "e"]), ("c", ["e"]), ("d", ["b", "e"]), ("e", ["b"])]
)
def test_beside_an_answer_that_is_gone_nothing_is_taken_for_another_questions(gone: str, taken: list[str]) -> None:
    """a and its second attempt b, c and its second attempt d, then e."""
    calls = [call("a"), call("b", 1), call("c"), call("d", 1), call("e")]
    samples, store = harvested([each for each in calls if each["key"] != gone], fact("One.", *"abcde"))
    assert [sample.answer for sample in samples] == [f"says {key}" for key in taken]
    assert store.counts["answers that the store no longer holds"] == 1


def test_one_answer_is_taken_once_and_only_if_enough_came_of_it() -> None:
    calls = [call("a"), call("b")]
    few = [fact("One.", "a"), fact("Two.", "a"), fact("Three.", "b"), fact("Four.", "a", "b")]
    samples, _ = harvested(calls, *few)
    assert Counter(sample.answer for sample in samples) == {"says a": 1, "says b": 1}
    samples, store = harvested(calls, *few, least=2)
    assert [sample.parents for sample in samples] == [(few[0].id, few[1].id)]
    assert store.counts["answers of which too few records came through"] == 2


def test_what_a_record_descends_from_was_made_for_it() -> None:
    above = fact("One.", "a")
    below = Sample(form="text", kind="x", text="One.", parents=(above.id,), origin=Origin(stage="texts", calls=("b",)))
    store = Store([call("a"), call("b")], CHUNK, above, below)
    both = run(HarvestConfig(kind="generate.harvest"), [below], store)  # type: ignore[arg-type]
    assert [sample.marks["step"] for sample in both] == ["texts", "facts"]  # type: ignore[union-attr]
    one = run(HarvestConfig(kind="generate.harvest", of=["facts"]), [below], store)  # type: ignore[arg-type]
    assert [sample.parents for sample in one] == [(above.id,)]  # type: ignore[union-attr]
    with pytest.raises(InputError, match="no record that came this far was written by fact"):
        list(run(HarvestConfig(kind="generate.harvest", of=["fact"]), [below], store))  # type: ignore[arg-type]


def test_what_is_held_out_is_not_taught() -> None:
    above = fact("One.", "f")
    asked = [
        Sample(form="text", kind="qa", text=text, parents=(above.id,), origin=Origin(stage="ask", calls=calls))
        for text, calls in (("First?", ("a",)), ("Second?", ("a", "b")), ("Third?", ("c",)))
    ]
    repaired = Sample(form="text", kind="qa", text="3?", parents=(asked[2].id,), origin=Origin(stage="r", calls=("d",)))
    records = [asked[0].marked(split="train"), asked[1].marked(split="test"), repaired.marked(split="validation")]
    store = Store([call(key) for key in "fabcd"], CHUNK, above, *asked, *records)
    made = list(run(HarvestConfig(kind="generate.harvest"), [*records, asked[2]], store))  # type: ignore[arg-type]
    assert [(one.record.id, one.reason) for one in made if isinstance(one, Dropped)] == [
        (record.id, "held out from training") for record in records[1:]
    ]
    assert [one.answer for one in made if isinstance(one, Sample)] == ["says f"]  # the fact stays taught
    assert store.counts["answers of which a record is held out"] == 2
    records = [judged("One.", "sound").marked(split="test"), judged("Two.", "unclear"), judged("Three.", "sound")]
    votes, _ = harvested([call(f"{n}") for n in ("One. sound", "Two. unclear", "Three. sound")], *records)
    assert [one.answer for one in votes if isinstance(one, Sample)] == ["says Two. unclear", "says Three. sound"]


def judged(statement: str, *choices: str, check: str = "sound") -> Fact:
    """The first choice won; the votes' calls are named by what they say."""
    votes = [{"choice": choice, "reason": "", "call": f"{statement} {choice}"} for choice in choices]
    votes.append({"choice": None, "reason": "broken off", "call": ""})
    return fact(statement, "a").marked(
        **{f"judge_{check}": choices[0], "judge": {check: {"passed": True, "votes": votes}}}  # type: ignore[dict-item]
    )


def test_votes_that_decided_are_harvested_where_a_check_knows_more_than_one_choice() -> None:
    records = [judged("One.", "sound", "unclear"), judged("Two.", "unclear"), judged("Three.", "kind", check="tone")]
    keys = ["One. sound", "One. unclear", "Two. unclear", "Three. kind"]
    calls = [call("a"), *(call(key, shots=0, model="m2") for key in keys)]
    samples, store = harvested(calls, *records)
    assert [(sample.answer, sample.marks["step"]) for sample in samples] == [
        ("says a", "facts"), ("says One. sound", "judge_sound"), ("says Two. unclear", "judge_sound"),
    ]  # fmt: skip
    verdict = samples[1]
    assert (verdict.parents, verdict.quotes, verdict.origin.model) == ((records[0].id,), (QUOTE,), "m2")
    assert [m.train for m in verdict.messages] == [False, False, True]
    assert store.counts["votes of a check that always chose the same"] == 1
    assert [s.answer for s in harvested(calls, *records, verdicts=False)[0]] == ["says a"]
    assert len(harvested(calls, *records, of=["judge_sound"])[0]) == 2
    assert len(harvested(calls, *records, least=2)[0]) == 3  # a verdict is on one record


def test_half_of_a_steps_chats_have_a_brief_instruction() -> None:
    facts = [fact(f"Fact {number}.", f"k{number}") for number in range(24)]
    calls = [call(f"k{number}") for number in range(24)]
    samples, _ = harvested(calls, *facts, brief={"facts": "Write."}, examples="kept")
    told = Counter(sample.messages[0].content for sample in samples)
    assert set(told) == {"Write.", "You write."} and min(told.values()) >= 5
    assert {len(sample.messages) for sample in samples} == {9}  # the examples are whole beside either
    with pytest.raises(InputError, match=r"written by fact$"):
        harvested(calls, *facts, brief={"fact": "Write."})
    with pytest.raises(ValidationError, match="`of` leaves out facts"):
        harvested(calls, *facts, of=["questions"], brief={"facts": "Write."})


def test_a_vote_that_was_asked_for_again_is_counted() -> None:
    samples, store = harvested([call("One. a", 1), call("Two. b"), call("a")], judged("One.", "a"), judged("Two.", "b"))
    assert [sample.answer for sample in samples] == ["says a", "says Two. b"]
    assert store.counts["answers without a prompt that can be taught"] == 1


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["kept", "dropped", "some"]), st.integers(0, 5))
def test_worked_examples_stay_in_pairs_and_are_never_learned(examples: Any, shots: int) -> None:
    counts = Counter()
    for number in range(12):
        (sample,), _ = harvested([call("a", shots=shots)], fact(f"Fact {number}.", "a"), examples=examples)
        assert [m.train for m in sample.messages] == [False] * (len(sample.messages) - 1) + [True]
        shown = [m.content for m in sample.messages[1:-2]]
        numbers = [int(text.split()[1]) for text in shown[::2]]
        assert shown == [f"{role} {n}" for n in numbers for role in ("user", "assistant")]
        assert numbers == sorted(set(numbers)) and set(numbers) <= set(range(shots))
        counts[len(numbers)] += 1
    if examples != "some" or not shots:
        assert set(counts) == {shots if examples == "kept" else 0}
    else:
        assert 0 < counts[0] < 12
