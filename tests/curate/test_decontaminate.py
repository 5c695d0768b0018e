"""Contamination: planted rows, every shape by itself, and look-alikes that must stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.curate.planted import plant

from gristmill.core.errors import InputError
from gristmill.core.records import Chunk, Sample, Task
from gristmill.curate.duplicates.benchmarks import Asked, read_benchmark
from gristmill.curate.duplicates.decontaminate import Benchmark, dice, inputs, run
from gristmill.curate.duplicates.stages import DecontaminateConfig
from gristmill.curate.words import words

EXAM = "How many pilgrims crossed the bridge of Orvale in the winter of 1822?"


def config(**given: Any) -> DecontaminateConfig:
    return DecontaminateConfig.model_validate({"kind": "curate.decontaminate", **given})


def judge(world: Any, sample: Sample, *, exam: str = EXAM, answers: tuple[str, ...] = (), source: str = "") -> str:
    """Why a sample is dropped; empty where it stays."""
    chunk = world.chunk(source or "Nothing of that.")
    ctx = world.context([chunk])
    task = Task(question=exam, answers=answers or ("312",))
    found = world.outcome(run(config(), [task, sample.model_copy(update={"parents": (chunk.id,)})], ctx))
    return found.dropped[0].reason if found.dropped else ""


def asks(world: Any, question: str, answer: str = "312 pilgrims") -> Sample:
    made: Sample = world.qa(question, answer, world.chunk("The mill is old."))
    return made


@pytest.mark.parametrize("seed", [1, 5])
def test_planted_contamination_is_found_and_nothing_else(world: Any, seed: int) -> None:
    made = plant(seed)
    records = [*made.exam, *(row.sample for row in made.rows)]
    found = world.outcome(run(config(), records, world.context(made.chunks)))
    dropped = {drop.record.id for drop in found.dropped}
    planted = {row.sample.id for row in made.faulty("contaminated")}
    clean = {row.sample.id for row in made.sound("contaminated")}
    assert len(planted) >= 55 and len(dropped & planted) >= 0.98 * len(planted)
    assert len(dropped & clean) <= 0.01 * len(clean)


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        (EXAM, "asks an exam question"),
        ("how many PILGRIMS crossed the bridge of orvale, in the winter of 1822", "asks an exam question"),
        (f"Here is one for you. {EXAM} Think well.", "asks an exam question"),
        ("How many pilgrims crossed the Orvale bridge in the winter of 1822?", "nearly an exam question"),
        ("In the winter of 1822, how many pilgrims crossed the bridge of Orvale?", "asks an exam question"),
        ("How many pilgrims crossed the bridge of Orvale in the winter of 1823?", ""),
        ("How many pilgrims crossed the bridge of Tessmoor in the winter of 1822?", ""),
        ("Who counted the pilgrims of Orvale?", ""),
    ],
)
def test_a_question_in_other_shapes(world: Any, question: str, reason: str) -> None:
    found = judge(world, asks(world, question))
    assert found == reason or (found and reason and question.startswith("In the winter"))


def test_another_answer_is_another_question(world: Any) -> None:
    exam = "Who built the tall north tower of the old harbour wall?"
    other = "Who built the tall south tower of the old harbour wall?"
    assert judge(world, asks(world, other, "Anna Dekker"), exam=exam, answers=("Bert Moor",)) == ""
    assert judge(world, asks(world, other, "Bert Moor"), exam=exam, answers=("Bert Moor",)) == "nearly an exam question"
    assert judge(world, asks(world, exam, "Anna"), exam=exam, answers=("Bert",)) == "asks an exam question"


def test_texts_are_searched_and_sources_may_hold_what_they_hold(world: Any) -> None:
    long = "According to the ledger of the guild, which of the seven masters paid for the copper roof of the chapel?"
    held = "which of the seven masters paid for the copper roof of the chapel"
    chunk = world.chunk("The mill is old.")
    said = world.text(f"We asked {held}, and nobody knew.", chunk)
    assert judge(world, said, exam=long) == "shares wording with an exam question"
    assert judge(world, said, exam=long, source=f"The ledger says {held}.") == ""
    assert judge(world, world.text(f"Q: {long} A: Nobody.", chunk), exam=long) == "asks an exam question"
    assert judge(world, world.text("312 pilgrims crossed the bridge of Orvale in the winter of 1822.", chunk)) == ""


def test_short_questions_count_only_as_a_whole_message(world: Any) -> None:
    assert judge(world, asks(world, "Who built it?"), exam="Who built it?") == "asks an exam question"
    assert judge(world, asks(world, "It stands there. Who built it there by night?"), exam="Who built it?") == ""


def test_gaps_at_other_places_are_other_questions(world: Any) -> None:
    exam = "Fill in the blank: the ferry of the old town carries ____ carts and two boats over the wide river."
    other = "Fill in the blank: the ferry of the old town carries many carts and ____ boats over the wide river."
    assert judge(world, asks(world, other, "two"), exam=exam, answers=("many",)) == ""
    assert judge(world, asks(world, exam, "many"), exam=exam, answers=("many",)) == "asks an exam question"


def test_held_out_samples_are_the_exam_and_stay(world: Any) -> None:
    chunk = world.chunk("The mill is old.")
    held = world.qa(EXAM, "312", chunk, marks={"split": "test"})
    same = world.qa(EXAM.replace("crossed", "passed"), "312", chunk, marks={"split": "train"})
    other = world.qa("Who keeps the mill of Orvale?", "Anna", chunk, marks={"split": "train"})
    found = world.outcome(run(config(), [held, same, other], world.context([chunk])))
    assert found.kept == [held, other] and [drop.record for drop in found.dropped] == [same]
    assert held.id in found.dropped[0].detail


@pytest.mark.parametrize("form", ["preference", "labelled"])
def test_samples_of_other_forms_are_held_out_too(world: Any, form: str) -> None:
    def made(text: str, split: str) -> Sample:
        said = {"role": "assistant", "content": "312"}
        content: dict[str, Any] = {"text": text, "label": "312"}
        if form == "preference":
            asked = {"role": "user", "content": text}
            content = {"messages": [asked], "chosen": [said], "rejected": [{**said, "content": "None"}]}
        return Sample.model_validate({"form": form, "kind": "k", **content, "marks": {"split": split}})

    held, same = made(EXAM, "test"), made(EXAM.replace("crossed", "passed"), "train")
    found = world.outcome(run(config(), [held, same], world.context()))
    assert found.kept == [held] and [drop.reason for drop in found.dropped] == ["nearly an exam question"]


def test_any_table_of_questions_is_a_benchmark(world: Any, tmp_path: Path) -> None:
    rows = [{"question": EXAM, "answers": ["312"]}, {"question": "Who rang the bell?", "answers": ["Tam"]}]
    files = {
        "a.jsonl": "\n".join(map(json.dumps, rows)),
        "b.json": json.dumps([{"prompt": row["question"], "target": row["answers"][0]} for row in rows]),
        "c.csv": f'problem,answer\n"{EXAM}",312\nWho rang the bell?,Tam\n',
        "d.tsv": f"query\tanswer\n{EXAM}\t312\nWho rang the bell?\tTam\n",
        "e.txt": f"{EXAM}\n\nWho rang the bell?\n",
        "f.csv": f'asked\n"{EXAM}"\nWho rang the bell?\n',
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "g.parquet")
    for name in (*files, "g.parquet"):
        found = list(read_benchmark(tmp_path / name, "asked" if name == "f.csv" else None))
        assert [asked.text for asked in found] == [EXAM, "Who rang the bell?"], name
        assert found[0].answers == (("312",) if name not in ("e.txt", "f.csv") else ()), name
    ctx = world.context(folder=tmp_path)
    given = config(exams=["a.jsonl"], benchmarks=["c.csv"])
    assert inputs(given, tmp_path) == [tmp_path / "a.jsonl", tmp_path / "c.csv"]
    assert [drop.reason for drop in world.outcome(run(given, [asks(world, EXAM)], ctx)).dropped] == [
        "asks an exam question"
    ]
    (tmp_path / "i.csv").write_text('question\n"Who rang the bell\nof the old tower?"\n', "utf-8")
    [lines] = read_benchmark(tmp_path / "i.csv")
    assert " ".join(lines.words) == "who rang the bell of the old tower"
    with pytest.raises(InputError, match="row without a question"):
        list(read_benchmark(tmp_path / "f.csv"))
    (tmp_path / "h.jsonl").write_text("{", "utf-8")
    with pytest.raises(InputError, match="cannot be read"):
        list(read_benchmark(tmp_path / "h.jsonl"))


def test_a_cell_of_a_benchmark_may_be_long(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"question,context\nWho rang the bell?,{'bell ' * 40_000}\n", "utf-8")
    assert [asked.text for asked in read_benchmark(tmp_path / "a.csv")] == ["Who rang the bell?"]


def test_an_answer_that_names_a_choice_says_nothing_by_itself(world: Any, tmp_path: Path) -> None:
    row = {"question": EXAM, "choices": ["12", "31", "312", "400"], "answer": 2}
    (tmp_path / "choices.jsonl").write_text(json.dumps(row), "utf-8")
    near = asks(world, "How many pilgrims crossed the Orvale bridge in the winter of 1822?", "About 312 pilgrims")
    given = config(exams=[], benchmarks=["choices.jsonl"])
    [drop] = world.outcome(run(given, [near], world.context(folder=tmp_path))).dropped
    assert drop.reason == "nearly an exam question"


def test_every_passage_that_a_sample_rests_on_may_hold_an_exams_words(world: Any) -> None:
    held = "which of the seven masters paid for the copper roof of the chapel"
    chunks = [world.chunk("The mill is old."), world.chunk(f"The ledger says {held}.", start=900)]
    parents = tuple(chunk.id for chunk in chunks)
    said = world.text(f"We asked {held}, and nobody knew.", chunks[0], parents=parents)
    task = Task(question=f"According to the ledger of the guild, {held}?", answers=("Bert",))
    assert world.outcome(run(config(), [task, said], world.context(chunks))).kept == [said]
    assert not world.outcome(run(config(), [task, said], world.context(chunks[:1]))).kept


def test_nothing_to_compare_with_is_an_error(world: Any) -> None:
    with pytest.raises(InputError, match="no exam to keep the samples apart from"):
        list(run(config(), [asks(world, EXAM)], world.context()))


VOCABULARY = [a + b for a in ("ba", "ke", "li", "mo") for b in ("das", "fet", "gix", "nor")]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.sampled_from(VOCABULARY), min_size=3, max_size=12), min_size=1, max_size=8), st.data())
def test_the_prefix_filter_misses_no_pair(questions: list[list[str]], data: st.DataObject) -> None:
    """Against comparing every pair."""
    benchmark = Benchmark([Asked(" ".join(q), str(n)) for n, q in enumerate(questions)], ngram=50, likeness=0.8)
    asked = list(data.draw(st.sampled_from(questions)))
    for _ in range(data.draw(st.integers(0, 3))):
        asked[data.draw(st.integers(0, len(asked) - 1))] = data.draw(st.sampled_from(VOCABULARY))
    chunk = Chunk(path="m.md", title="M", text="x", start=0, end=1, tokens=1, language="en")
    message = {"role": "user", "content": " ".join(asked)}
    sample = Sample(form="chat", kind="qa", messages=(message,), parents=(chunk.id,))  # type: ignore[arg-type]
    near = any(dice(words(" ".join(asked)), words(" ".join(q))) >= 0.8 for q in questions)
    assert near <= (benchmark.find(sample, str) is not None)
