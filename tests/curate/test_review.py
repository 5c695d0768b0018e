"""Human review: what is exported comes back as decisions, and a slip in the sheet never passes for one."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.core.errors import InputError
from gristmill.core.records import Message, Sample
from gristmill.curate.review.decide import edited, inputs, run
from gristmill.curate.review.sheet import texts_of, write_sheet
from gristmill.curate.review.stages import ReviewConfig

Row = dict[str, str]


def said(*turns: str, **more: Any) -> tuple[Message, ...]:
    """Messages by turns: user, assistant, user, …"""
    roles: list[Any] = ["user", "assistant"]
    return tuple(
        Message(role=roles[n % 2], content=t, train=more.get("train", n % 2 == 1)) for n, t in enumerate(turns)
    )


def chat(*turns: str, name: str = "one") -> Sample:
    return Sample(form="chat", kind="qa", messages=said(*turns), parents=(name,))


POOL = [
    chat("Who built it?", "Anna", name="a"),
    chat("Who keeps it?", "Bert", "Since when?", "Since\n1822, “they say”", name="b"),
    Sample(form="text", kind="passage", text="The mill is old, =not new.", train=((4, 8),), parents=("c",)),
    Sample(form="labelled", kind="review", text="A fine mill", label="good", spans=((2, 6),), parents=("d",)),
    Sample(form="preference", kind="pair", messages=said("Who?"), chosen=said("?", "Anna")[1:],
           rejected=said("?", "Nobody")[1:], parents=("e",)),
]  # fmt: skip


def sheet(folder: Path, kind: str) -> list[Row]:
    lines, table = write_sheet(POOL, folder)
    if kind == "jsonl":
        return [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    return list(csv.DictReader(io.StringIO(table.read_text("utf-8-sig"), newline="")))


def give_back(rows: list[Row], path: Path) -> None:
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
        return
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_bytes(text.getvalue().encode("utf-8-sig"))


@pytest.fixture(params=["jsonl", "csv"])
def review(request: pytest.FixtureRequest, world: Any, tmp_path: Path) -> Callable[..., Any]:
    """Export the pool, let `fill` decide, and read it back."""

    def review(fill: Callable[[list[Row]], object], *, warns: bool = False, **config: Any) -> Any:
        rows = sheet(tmp_path, request.param)
        fill(rows)
        path = tmp_path / f"filled.{request.param}"
        give_back(rows, path)
        ctx = world.context(folder=tmp_path)
        if warns:
            ctx.warn = lambda message: ctx.counts.update({message: 1})
        settings = ReviewConfig(kind="curate.review", decisions=path.name, **config)
        assert inputs(settings, tmp_path) == [path]
        found = world.outcome(run(settings, POOL, ctx))
        found.counts = ctx.counts
        return found

    return review


def decide(**decisions: str) -> Callable[[list[Row]], None]:
    """Decisions by the place of a row: r0="approve"."""

    def fill(rows: list[Row]) -> None:
        for name, decision in decisions.items():
            rows[int(name[1:])]["decision"] = decision

    return fill


def test_decisions_become_a_filter(review: Any) -> None:
    found = review(decide(r0="approve", r1="Reject ", r2="approve"))
    assert [(drop.record, drop.reason) for drop in found.dropped] == [(POOL[1], "rejected in review")]
    assert [sample.id for sample in found.kept] == [POOL[n].id for n in (0, 2, 3, 4)]
    assert [sample.marks for sample in found.kept] == [{"review": "approve"}, {"review": "approve"}, {}, {}]
    assert found.counts == {"approve": 2, "reject": 1}


def test_what_nobody_decided_may_be_dropped(review: Any) -> None:
    found = review(decide(r0="approve"), undecided="drop")
    assert [sample.id for sample in found.kept] == [POOL[0].id]
    assert {drop.reason for drop in found.dropped} == {"not reviewed"}


def test_marking_only_changes_and_drops_nothing(review: Any) -> None:
    def fill(rows: list[Row]) -> None:
        rows[0] |= {"decision": "reject", "note": "no builder is known"}
        rows[1] |= {"decision": "edit", "answer": "Berta"}

    found = review(fill, drop=False)
    assert [sample.id for sample in found.kept] == [sample.id for sample in POOL] and not found.dropped
    assert found.kept[0].marks == {"review": "reject", "review_note": "no builder is known"}
    assert found.kept[1].marks == {"review": "edit"}


def test_edits_reach_every_part_of_every_form(review: Any) -> None:
    def fill(rows: list[Row]) -> None:
        for n, (name, text) in enumerate(
            [("answer", "Anna Dekker"), ("answer 2", "Since 1823"), ("text", "Our mill is old."), ("label", "poor"),
             ("rejected", "Nobody at all")]
        ):  # fmt: skip
            rows[n] |= {"decision": "edit", name: text}

    found = review(fill)
    assert not found.dropped and found.counts == {"edit": 5}
    for before, after in zip(POOL, found.kept, strict=True):
        assert after.parents == (before.id,) and after.id != before.id and after.form == before.form
        assert after.marks == {"review": "edit"} and after.origin.stage == "stage"
    one, two, text, labelled, pair = found.kept
    assert one.messages[1] == Message(role="assistant", content="Anna Dekker", train=True)
    assert [m.content for m in two.messages] == ["Who keeps it?", "Bert", "Since when?", "Since 1823"]
    assert text.text[slice(*text.train[0])] == "mill" and labelled.label == "poor" and labelled.spans == ((2, 6),)
    assert pair.rejected[0].content == "Nobody at all" and pair.chosen == POOL[4].chosen


def test_a_mask_that_cannot_be_placed_drops_the_edit(review: Any) -> None:
    def fill(rows: list[Row]) -> None:
        rows[2] |= {"decision": "edit", "text": "A mill is a mill."}

    (drop,) = review(fill).dropped
    assert (drop.record, drop.reason) == (POOL[2], "edited where a part of the text is trained on")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"decision": "yes"}, "unknown decision 'yes'"),
        ({"decision": "approve", "answer": "Another"}, "answer was changed, but not edited by decision"),
        ({"answer": "Another"}, "answer was changed, but not edited by decision"),
        ({"decision": "edit"}, "nothing was edited"),
        ({"decision": "edit", "answer 2": "More"}, "has no answer 2"),
        ({"decision": "approve", "id": ""}, "a decision has `id` and `decision`"),
    ],
)
def test_a_slip_is_an_error_with_its_row(review: Any, row: Row, said: str) -> None:
    def fill(rows: list[Row]) -> None:
        rows[0] |= row
        rows[3]["decision"] = "approve"

    with pytest.raises(InputError, match=said) as caught:
        review(fill)
    assert ", row 1" in str(caught.value) and "filled." in str(caught.value)


def test_unknown_samples_are_told(review: Any) -> None:
    def strange(rows: list[Row]) -> None:
        rows[0] |= {"decision": "approve"}
        rows[1] |= {"decision": "reject", "id": "0123"}

    found = review(strange, warns=True)
    assert found.counts["1 of 2 decisions are about samples that are not here: 0123"] == 1
    assert found.counts["decisions on samples that are not here"] == 1 and len(found.kept) == 5

    def all_strange(rows: list[Row]) -> None:
        rows[1] |= {"decision": "reject", "id": "0123"}

    with pytest.raises(InputError, match="none of the 1 decisions"):
        review(all_strange)
    with pytest.raises(InputError, match="holds no decision"):
        review(lambda rows: None)
    with pytest.raises(InputError, match="stands there twice"):
        review(lambda rows: rows.append({**rows[0], "decision": "approve"}))


def filled(folder: Path, pool: list[Sample], change: Callable[[str], str]) -> Path:
    """The sheet's own bytes, with what is changed in them."""
    path = folder / "filled.csv"
    _, table = write_sheet(pool, folder)
    text = table.read_bytes().decode("utf-8-sig")
    assert change(text) != text
    path.write_bytes(change(text).encode("utf-8-sig"))
    return path


def read_back(path: Path, pool: list[Sample], world: Any) -> Any:
    config = ReviewConfig(kind="curate.review", decisions=path.name)
    return world.outcome(run(config, pool, world.context(folder=path.parent)))


@pytest.mark.parametrize(
    "text", ["first\rsecond", "\r", "a\r\nb\n\rc", "x" * 200_000], ids=["within", "alone", "mixed", "long"]
)
def test_the_sheet_as_it_is_written_comes_back_with_a_decision_alone(world: Any, tmp_path: Path, text: str) -> None:
    pool = [chat("Who?", text), chat("Who keeps it?", "Bert", name="b")]
    path = filled(tmp_path, pool, lambda said: said.replace(f"{pool[0].id},,", f"{pool[0].id},approve,"))
    found = read_back(path, pool, world)
    assert [sample.marks for sample in found.kept] == [{"review": "approve"}, {}] and not found.dropped
    assert found.kept[0].messages == pool[0].messages


def test_empty_rows_of_a_spreadsheet_are_passed_over_and_counted(world: Any, tmp_path: Path) -> None:
    def left_behind(said: str) -> str:
        first, second, *rest = said.replace(f"{POOL[0].id},,", f"{POOL[0].id},approve,").split("\r\n")
        commas = "," * first.count(",")
        return "\r\n".join([first, second, commas, *rest[:-1], f" {commas},,", commas, ""])

    path = filled(tmp_path, POOL, left_behind)
    assert [sample.marks for sample in read_back(path, POOL, world).kept] == [{"review": "approve"}, {}, {}, {}, {}]
    path.write_text(path.read_text("utf-8-sig").replace("Bert", "Berta"), "utf-8")
    with pytest.raises(InputError, match=r"filled\.csv, row 3: answer was changed"):
        read_back(path, POOL, world)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"decision": "approve", "answer": ""}, "answer was changed, but not edited by decision"),
        ({"answer": ""}, "answer was changed, but not edited by decision"),
        ({"decision": "edit", "answer": ""}, "answer was emptied"),
        ({"decision": "edit", "answer": "", "question": "Who, then?"}, "answer was emptied"),
    ],
)
def test_an_emptied_text_is_a_slip(review: Any, row: Row, said: str) -> None:
    def fill(rows: list[Row]) -> None:
        rows[0] |= row
        rows[1]["decision"] = "approve"

    with pytest.raises(InputError, match=f"row 1: {said}"):
        review(fill)


def test_what_is_rejected_may_be_empty_and_a_column_that_is_gone_says_nothing(review: Any) -> None:
    found = review(lambda rows: rows[0].update({"decision": "reject", "answer": ""}))
    assert [drop.reason for drop in found.dropped] == ["rejected in review"]

    def short(rows: list[Row]) -> None:
        rows[:] = [{"id": row["id"], "decision": "approve"} for row in rows]

    assert review(short).counts == {"approve": 5}


words = st.text("ab \n,\"';=é語", min_size=1, max_size=30).filter(str.strip)


@settings(max_examples=60, deadline=None)
@given(st.lists(words, min_size=2, max_size=6), st.data())
def test_any_text_may_be_edited_to_any_other(turns: list[str], data: st.DataObject) -> None:
    sample = chat(*turns)
    name = data.draw(st.sampled_from(list(texts_of(sample))))
    text = data.draw(words)
    after = texts_of(edited(sample, {name: text}, stage="review"))
    assert after == {**texts_of(sample), name: text}
