"""What is written is in the export, each sample once: as text, and as rows of tokens."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.curate.conftest import Context as Room
from tests.generate.conftest import DOCUMENT, TEXT, Context, chunk_of
from tests.generate.test_writers import Recorder

from gristmill.core.errors import InputError
from gristmill.core.records import Message, Sample
from gristmill.curate.export import run
from gristmill.curate.packed import IGNORED, fitted
from gristmill.curate.stages import ExportConfig
from gristmill.generate import facts, passage, rephrase
from gristmill.generate.pretrain import active_reading, entigraph
from gristmill.generate.pretrain.stages import ActiveReadingConfig, EntigraphConfig
from gristmill.generate.stages import FactsConfig, PassageConfig, RephraseConfig
from gristmill.models.renderer import Renderer
from gristmill.models.weights import locate_tokenizer
from gristmill.runs.source import read_source

RECIPES = Path(__file__).parents[2] / "recipes"
SMOL = "smollm2-135m-instruct"
WROTE = (
    "Upon the Gull's Table rises the 41 metres of Varn's lighthouse. Edda Moor needed the years from 1818 to 1822 for "
    "it, and in May of 1822 Tam Hale kindled its first lamp. Thursdays belong to the Salt Court, as since 1640."
)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer.load(locate_tokenizer(SMOL, base=Path()))


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def exported(pool: list[Sample], folder: Path, **options: Any) -> dict[str, list[dict[str, Any]]]:
    """The rows of every format, all splits together."""
    config = ExportConfig(kind="curate.export", files=["jsonl"], **options)
    room: Any = Room([chunk_of(), DOCUMENT], folder=folder)
    assert list(run(config, pool, room)) == pool
    files = {name: sorted((folder / "exports" / "dataset" / name).glob("*.jsonl")) for name in config.formats}
    return {name: [row for file in at for row in rows_of(file)] for name, at in files.items()}


async def everything() -> list[Sample]:
    """A chunk in each way that this family knows."""
    chunk, pool = chunk_of(), []
    context = Context(Recorder(WROTE), chunk)  # type: ignore[arg-type]
    said = [{"sentence": 4, "statement": "The library of Varn holds 912 maps."}]
    follows = [{"sentences": [1, 3], "statement": "Tam Hale kept the lighthouse that the engineer Edda Moor built."}]
    made = []
    for inferred, answer in ((False, said), (True, follows)):
        config = FactsConfig(kind="generate.facts", model="writer", inferred=inferred)
        made += await facts.run(config, chunk, Context(Recorder(json.dumps({"facts": answer})), chunk))  # type: ignore[arg-type]
    for record in (chunk, *made):
        pool += await passage.run(PassageConfig(kind="generate.passage"), record, Context(None, chunk, record))
    styles = RephraseConfig(kind="generate.rephrase", model="writer", styles=["essay"])
    pool += await rephrase.run(styles, chunk, context)
    enti = EntigraphConfig(kind="generate.entigraph", model="writer", ask="line", pairs=99, triples=0)
    for draft in await entigraph.entities(enti, chunk, context):
        if set(draft.data["entities"]) == {"Edda Moor", "Tam Hale"}:  # type: ignore[arg-type]
            pool += await entigraph.run(enti, draft, Context(Recorder(WROTE), chunk, draft))  # type: ignore[arg-type]
    active = ActiveReadingConfig(kind="generate.active_reading", model="writer", ask="line", per_record=1)
    for draft in await active_reading.strategies(active, chunk, context):
        pool += await active_reading.run(active, draft, Context(Recorder(WROTE), chunk, draft))  # type: ignore[arg-type]
    return pool


async def test_every_kind_is_in_the_export_exactly_once(tmp_path: Path, renderer: Renderer) -> None:
    pool = await everything()
    kinds = ["passage", "fact", "inferred", "rephrase", "entigraph", "active_reading"]
    assert Counter(sample.kind for sample in pool) == Counter(kinds)
    formats = exported(pool, tmp_path, formats=["text", "packed"], tokenizer=SMOL, context=128)
    assert [row["id"] for row in formats["text"]] == [sample.id for sample in pool]
    assert Counter(id for row in formats["packed"] for id in row["ids"]) == Counter(sample.id for sample in pool)
    learned = sum(label != IGNORED for row in formats["packed"] for label in row["labels"])
    assert learned == sum(sum(renderer.text(sample.text).mask[1:]) for sample in pool)
    assert not (tmp_path / "exports/dataset/refused.jsonl").read_text()


def test_the_recipe_exports_what_is_well_written_beside_its_misspelled_copies() -> None:
    stages = read_source(RECIPES / "variation.yaml", None).data["stages"]
    names = list(stages)
    taken = {name: set(stages[name].get("needs") or [before]) for before, name in pairwise(names)}
    assert stages["typos"]["kind"] == "generate.perturb"  # it gives the copies alone
    assert taken["export"] >= taken["typos"] | {"typos"}


def text_of(content: str, **more: Any) -> Sample:
    return Sample(form="text", kind="passage", text=content, parents=("p",), **more)


def test_a_text_longer_than_a_row_is_cut_and_none_of_it_lost(tmp_path: Path, renderer: Renderer) -> None:
    rows = exported([text_of(TEXT)], tmp_path, formats=["packed"], tokenizer=SMOL, context=16)["packed"]
    ids = renderer.text(TEXT).ids
    assert [len(row["input_ids"]) for row in rows[:-1]] == [16] * (len(rows) - 1)
    learned = [label for row in rows for label in row["labels"] if label != IGNORED]
    assert learned == ids[1:]  # each once: a first token follows from nothing
    assert all(row["position_ids"] == list(range(len(row["input_ids"]))) for row in rows)
    joined = rows[0]["input_ids"] + [token for row in rows[1:] for token in row["input_ids"][1:]]
    assert renderer.decode(joined) == TEXT


def test_a_row_holds_whole_samples_with_their_masks_and_splits_stay_apart(tmp_path: Path, renderer: Renderer) -> None:
    turns = (Message(role="user", content="Who lit it?"), Message(role="assistant", content="Tam Hale.", train=True))
    chat = Sample(form="chat", kind="qa", messages=turns, parents=("p",), marks={"split": "test"})
    half = text_of("The lamp was lit. Nobody knows why.", train=((0, 17),))
    whole = text_of("The tower is tall.")
    exported([chat, half, whole], tmp_path, formats=["packed"], tokenizer=SMOL, context=256)
    folder = tmp_path / "exports/dataset/packed"
    (tested,), (trained,) = [rows_of(folder / name) for name in ("test.jsonl", "train.jsonl")]
    assert (tested["ids"], trained["ids"]) == ([chat.id], [half.id, whole.id])
    assert renderer.decode([label for label in tested["labels"] if label != IGNORED]) == "Tam Hale."
    assert "The lamp was lit." not in renderer.decode(trained["labels"][1:4])
    first = renderer.text(half.text, train=half.train)
    assert trained["input_ids"][: len(first.ids)] == first.ids and trained["position_ids"][len(first.ids)] == 0
    assert [label != IGNORED for label in trained["labels"][: len(first.ids)]] == [False, *first.mask[1:]]


def test_what_cannot_be_said_in_rows_is_refused_with_its_reason(tmp_path: Path) -> None:
    turns = (Message(role="user", content=TEXT), Message(role="assistant", content="Yes.", train=True))
    pool = [
        Sample(form="chat", kind="qa", messages=turns),
        text_of(TEXT, train=False),
        Sample(form="labelled", kind="qa", text=TEXT, label="good"),
        text_of("The tower is tall."),
    ]
    rows = exported(pool, tmp_path, formats=["packed"], tokenizer=SMOL, context=32)["packed"]
    refused = rows_of(tmp_path / "exports/dataset/refused.jsonl")
    assert [row["ids"] for row in rows] == [[pool[3].id]]
    said = ["longer than a row", "nothing to train on", "a labelled sample is not said in this format"]
    assert [(each["id"], each["reason"]) for each in refused] == [(pool[n].id, said[n]) for n in range(3)]
    with pytest.raises(InputError, match="no sample can be written as packed"):
        exported(pool[:2], tmp_path, formats=["packed"], tokenizer=SMOL, context=32)


@settings(max_examples=80)
@given(st.lists(st.integers(1, 50), max_size=60), st.integers(50, 120))
def test_rows_hold_every_piece_once_and_no_two_half_empty_ones_could_be_one(lengths: list[int], context: int) -> None:
    rows = fitted(lengths, context)
    assert sorted(at for row in rows for at in row) == list(range(len(lengths)))
    filled = sorted(sum(lengths[at] for at in row) for row in rows)
    assert all(tokens <= context for tokens in filled)
    assert len(filled) < 2 or filled[0] + filled[1] > context


@pytest.mark.parametrize("options", [{"formats": ["packed"]}, {"tokenizer": SMOL}, {"context": 64}])
def test_settings_without_effect_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="packed"):
        ExportConfig(kind="curate.export", **options)
