"""Training data files as samples: every form, every mask, and back again from an export."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gristmill.core.errors import InputError
from gristmill.core.records import File, Message, Sample
from gristmill.core.stage import Dropped
from gristmill.curate.export import write_export
from gristmill.ingest import files, samples
from gristmill.ingest.stages import SamplesConfig


class Context:
    def __init__(self, base: Path) -> None:
        self.base = base
        self.counts: dict[str, float] = {}

    def progress(self, done: float, total: float, **values: Any) -> None:
        pass

    def count(self, **amounts: float) -> None:
        self.counts |= amounts


def read(base: Path, *paths: str, **options: Any) -> tuple[list[Sample], list[Dropped]]:
    config = SamplesConfig(kind="ingest.samples", paths=list(paths), **options)
    context: Any = Context(base)
    listed = [item for item in files.run(config, [], context) if isinstance(item, File)]
    made = list(samples.run(config, listed, context))
    taken = [m for m in made if isinstance(m, Sample)]
    assert sum(context.counts.values()) == len(taken)
    return taken, [m for m in made if isinstance(m, Dropped)]


def one(tmp_path: Path, row: Any, **options: Any) -> Sample | str:
    """The sample of a row, or the reason why it is none."""
    (tmp_path / "t.jsonl").write_bytes(orjson.dumps(row) + b"\n")
    taken, dropped = read(tmp_path, "t.jsonl", **options)
    return taken[0] if taken else dropped[0].reason


def user(text: str) -> Message:
    return Message(role="user", content=text)


def answer(text: str, train: Any = True) -> Message:
    return Message(role="assistant", content=text, train=train)


SYSTEM = Message(role="system", content="Be kind.")
ASKED = {"role": "user", "content": "Why?"}
SAID = {"role": "assistant", "content": "Thus."}
CHAT = {"form": "chat", "messages": (user("Why?"), answer("Thus."))}
PAIR = {"form": "preference", "messages": (user("Why?"),), "chosen": (answer("Good."),), "rejected": (answer("Bad."),)}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("row", "held"),
    [
        ({"text": "Orvale."}, {"form": "text", "text": "Orvale.", "train": True}),
        ({"text": "Orvale.", "train": [[0, 2]]}, {"form": "text", "text": "Orvale.", "train": ((0, 2),)}),
        ({"text": "Orvale.", "train": False}, {"form": "text", "text": "Orvale.", "train": False}),
        ({"messages": [ASKED, SAID], "text": "as it was shown"}, CHAT),
        ({"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Thus."}]}, CHAT),
        ({"instruction": "Why?", "output": "Thus."}, CHAT),
        ({"instruction": "Sum up.", "input": "A text.", "output": "Thus.", "system": "Be kind."},
         {"form": "chat", "messages": (SYSTEM, user("Sum up.\n\nA text."), answer("Thus."))}),
        ({"prompt": "Why?", "completion": "Thus."}, CHAT),
        ({"prompt": [ASKED], "completion": [SAID]}, CHAT),
        ({"prompt": "Why?", "chosen": "Good.", "rejected": "Bad."}, PAIR),
        ({"prompt": [ASKED], "chosen": [said("Good.")], "rejected": [said("Bad.")]}, PAIR),
        ({"chosen": [ASKED, said("Good.")], "rejected": [ASKED, said("Bad.")]}, PAIR),
        ({"prompt": "Why?", "messages": [ASKED, said("Good.")], "chosen": [ASKED, said("Good.")],
          "rejected": [ASKED, said("Bad.")]}, PAIR),
        ({"prompt": "Why?", "completion": "Thus.", "label": True},
         {"form": "rating", "messages": CHAT["messages"], "desirable": True}),
        ({"prompt": "Why?", "completion": "Thus.", "label": "False"},
         {"form": "rating", "messages": CHAT["messages"], "desirable": False}),
        ({"text": "Orvale.", "label": 3}, {"form": "labelled", "text": "Orvale.", "label": "3"}),
        ({"text": "Orvale.", "label": "place"}, {"form": "labelled", "text": "Orvale.", "label": "place"}),
        ({"text": "A fine mill.", "label": "good", "spans": [[7, 11]]},
         {"form": "labelled", "text": "A fine mill.", "label": "good", "spans": ((7, 11),)}),
        ({"text": "A fine mill.", "label": "good", "spans": "[[7, 11]]"},
         {"form": "labelled", "text": "A fine mill.", "label": "good", "spans": ((7, 11),)}),
        ({"messages": [ASKED, SAID | {"weight": 0}, ASKED, SAID | {"weight": 1}]},
         {"form": "chat", "messages": (user("Why?"), answer("Thus.", False), *CHAT["messages"])}),
        ({"messages": [ASKED | {"train": True}, SAID | {"train": [[0, 3]]}]},
         {"form": "chat", "messages": (Message(role="user", content="Why?", train=True), answer("Thus.", ((0, 3),)))}),
        ({"messages": [ASKED, {"role": "assistant", "content": [{"type": "text", "text": "Thus."}]}]}, CHAT),
        ({"messages": orjson.dumps([ASKED, SAID]).decode()}, CHAT),
    ],
)  # fmt: skip
def test_a_row_is_what_its_columns_say(tmp_path: Path, row: Any, held: dict[str, Any]) -> None:
    made = one(tmp_path, row)
    assert isinstance(made, Sample), made
    assert made == Sample(kind="given", parents=made.parents, marks={"line": 1}, **held)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"body": "Orvale."}, "row of no known form"),
        ({"text": 3}, "content that is no text"),
        ({"text": ""}, "row that is no sample"),
        ({"text": "Orvale.", "label": None}, "no label"),
        ({"text": "Orvale.", "label": [1]}, "label that is neither a word nor a number"),
        ({"text": "Orvale.", "train": [[0, 99]]}, "span outside its text"),
        ({"text": "Orvale.", "label": "x", "spans": [[0, 99]]}, "span outside its text"),
        ({"text": "Orvale.", "label": "x", "spans": True}, "spans that cannot be read"),
        ({"text": "Orvale.", "split": "dev"}, "unknown split"),
        ({"messages": []}, "messages that are no list"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, "unknown role"),
        ({"messages": [ASKED, SAID | {"tool_calls": [{}]}]}, "message that calls tools"),
        ({"messages": [ASKED, SAID | {"weight": 1, "train": True}]}, "message with two masks"),
        ({"messages": [ASKED, SAID | {"weight": 0.5}]}, "mask that cannot be read"),
        ({"messages": [ASKED, {"role": "assistant", "content": None}]}, "content that is no text"),
        ({"prompt": "Why?", "completion": "Thus.", "label": None}, "no label"),
        ({"prompt": "Why?", "completion": "Thus.", "label": "maybe"}, "label that is neither true nor false"),
        ({"prompt": "Why?", "chosen": "A", "rejected": "A"}, "chosen and rejected are the same"),
        ({"chosen": "A", "rejected": "B"}, "no prompt"),
        ({"prompt": "How?", "chosen": [ASKED, said("A")], "rejected": [ASKED, said("B")]},
         "prompt that the conversations do not hold"),
        ({"chosen": [ASKED, said("A")], "rejected": [ASKED]}, "a side without an answer to train on"),
        ({"instruction": "a", "output": "b", "history": [["c", "d"]]}, "alpaca row with a history"),
    ],
)  # fmt: skip
def test_a_row_that_is_no_sample_is_rejected_with_the_reason(tmp_path: Path, row: Any, reason: str) -> None:
    assert one(tmp_path, row) == reason


def test_a_bad_row_is_named_by_its_place_and_the_others_are_read(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(b'{"text": "a"}\n{"text": 1}\nnonsense\n{"text": "b"}\n')
    taken, dropped = read(tmp_path, "t.jsonl")
    assert [sample.text for sample in taken] == ["a", "b"]
    assert [(d.reason, d.detail.partition(":")[0]) for d in dropped] == [
        ("content that is no text", "line 2"),
        ("damaged line", "line 3"),
    ]


@pytest.mark.parametrize(
    ("file", "text", "place"),
    [
        ("t.jsonl", '{"text": "a"}\n{"text": "\\ud800"}\n{"text": "b"}\n', "line 2"),
        ("t.json", '[{"text": "a"}, {"text": "\\ud800"}, {"text": "b"}]', "row 2"),
        ("t.csv", 'messages\n"[{""role"": ""user"", ""content"": ""\\udfff""}]"\n', "line 2"),
    ],
)
def test_half_a_character_is_a_bad_row(tmp_path: Path, file: str, text: str, place: str) -> None:
    (tmp_path / file).write_text(text)
    taken, (dropped,) = read(tmp_path, file)
    assert [sample.text for sample in taken] == ([] if file == "t.csv" else ["a", "b"])
    assert dropped.detail.startswith(place)
    assert "surrogate" in dropped.detail


def test_what_the_recipe_says_of_rows(tmp_path: Path) -> None:
    row = {"content": "Orvale.", "label": None, "prompt": "p", "completion": "c"}
    made = one(tmp_path, row, names={"text": "content"}, format="text", split="validation", language="de")
    assert isinstance(made, Sample)
    assert (made.text, made.language, made.marks["split"]) == ("Orvale.", "de", "validation")
    told = one(tmp_path, {"text": "x", "split": "test", "language": "fr", "kind": "note"}, split="train")
    assert isinstance(told, Sample)
    assert (told.kind, told.language, told.marks["split"]) == ("note", "fr", "test")
    assert one(tmp_path, {"text": "x"}, format="preference") == "no chosen and no rejected"


def test_csv_and_parquet_hold_the_same(tmp_path: Path) -> None:
    table = [{"prompt": f"q{i}", "chosen": f"a, {i}", "rejected": f'b "{i}"'} for i in range(2500)]
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(table[0]))
    writer.writeheader()
    writer.writerows(table)
    (tmp_path / "t.csv").write_text(out.getvalue())
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "t.parquet", row_group_size=300)
    one_way, other = read(tmp_path, "t.csv")[0], read(tmp_path, "t.parquet")[0]
    assert [s.content() for s in one_way] == [s.content() for s in other]
    assert [s.chosen[0].content for s in other] == [row["chosen"] for row in table]
    assert [s.marks["row"] for s in other] == list(range(1, 2501))


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0<"), min_size=1, max_size=12)
SPANS = st.tuples(st.integers(0, 3), st.integers(1, 4))


@st.composite
def masks(draw: st.DrawFn, text: str) -> Any:
    start = draw(st.integers(0, len(text) - 1))
    end = draw(st.integers(start + 1, len(text)))
    return draw(st.sampled_from([True, False, ((start, end),)]))


@st.composite
def turns(draw: st.DrawFn) -> tuple[Message, ...]:
    return tuple(user(draw(WORDS)) if at % 2 else answer(draw(WORDS)) for at in range(draw(st.integers(1, 3))))


@st.composite
def given_samples(draw: st.DrawFn) -> Sample:
    form = draw(st.sampled_from(["chat", "preference", "rating", "labelled", "text"]))
    about = {
        "form": form,
        "kind": draw(st.sampled_from(["given", "qa"])),
        "language": draw(st.sampled_from(["en", "de"])),
    }
    text, prompt = draw(WORDS), (SYSTEM, user(draw(WORDS)))
    if form == "text":
        train = draw(masks(text))
        return Sample(
            form="text", kind="given", text=text, train=True if train in (False, ((0, len(text)),)) else train
        )
    if form == "labelled":
        spans = draw(masks(text))
        return Sample(**about, text=text, label=draw(WORDS), spans=() if isinstance(spans, bool) else spans)
    if form == "rating":
        said = (*prompt, answer(text), Message(role="tool", content="4"), answer(text))
        return Sample(**about, messages=said, desirable=draw(st.booleans()))
    if form == "preference":
        chosen = draw(turns())
        rejected = draw(turns().filter(lambda other: other != chosen))
        return Sample(**about, messages=prompt, chosen=chosen, rejected=rejected)
    masked = [user(draw(WORDS)), answer(text)]
    return Sample(**about, messages=[m.model_copy(update={"train": draw(masks(m.content))}) for m in masked])


FORMAT_OF = {"chat": "masked", "preference": "preference", "rating": "rating", "labelled": "labelled", "text": "text"}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(given_samples(), min_size=1, max_size=6), st.sampled_from(["jsonl", "parquet"]))
def test_what_is_exported_is_read_back(tmp_path: Path, pool: list[Sample], file: str) -> None:
    folder = tmp_path / "out"
    for form in {sample.form for sample in pool}:
        name, same = FORMAT_OF[form], [sample for sample in pool if sample.form == form]
        done = write_export(same, folder, formats=[name], files=[file])
        assert done.refused == []
        taken, dropped = read(tmp_path, f"out/{name}/train.{file}")
        assert dropped == []
        assert [s.content() for s in taken] == [s.content() for s in same]


def test_check_says_that_no_column_fits(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("body,mark\nx,1\n")
    with pytest.raises(InputError, match="no row can become a sample: the columns are body, mark"):
        samples.fields(SamplesConfig(kind="ingest.samples", paths=["t.csv"]), tmp_path, None)
    named = SamplesConfig(kind="ingest.samples", paths=["t.csv"], names={"text": "body"})
    assert {"text", "messages", "question"} <= (samples.fields(named, tmp_path, None) or set())
