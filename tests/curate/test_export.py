"""Exports are opened with the `datasets` package itself, offline, and compared with the samples they came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from gristmill.core.errors import InputError
from gristmill.core.records import File, Message, Origin
from gristmill.curate.export import run, write_export
from gristmill.curate.stages import ExportConfig

CHATS = ("openai", "sharegpt", "alpaca", "chatml")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


def load(tmp_path: Path, *args: Any, **more: Any) -> Any:
    import datasets

    return datasets.load_dataset(*args, cache_dir=str(tmp_path / "cache"), **more)


def corpus(world: Any) -> tuple[list[Any], Any]:
    file = File(path="mill.md", sha256="ab" * 32, size=9)
    chunk = world.chunk("Die Mühle wurde 1720 gebaut.", language="de", parents=(file.id,))
    origin = Origin(stage="questions", prompt="qa@12ab", model="local:ff00")
    chats = [
        world.qa(f"Wann wurde die Mühle gebaut, {i}?", f"1720 „{i}“\n\\n", chunk, marks={"split": split})
        for i, split in enumerate(["train", "train", "validation", "test"])
    ]
    texts = [world.text("1720 wurde die Mühle gebaut.", chunk, train=((5, 10),), marks={"split": "train"})]
    samples = [s.model_copy(update={"origin": origin}) for s in [*chats, *texts]]
    return samples, world.context([file, chunk])


def test_every_format_opens_and_holds_the_samples(world: Any, tmp_path: Path) -> None:
    samples, ctx = corpus(world)
    ctx.run_folder = tmp_path
    config = ExportConfig(kind="curate.export", name="mill", formats=[*CHATS, "text"], license="cc-by-4.0")
    assert list(run(config, samples, ctx)) == samples
    folder = tmp_path / "exports" / "mill"
    for name in CHATS:
        opened = load(tmp_path, str(folder), name)
        assert {split: len(rows) for split, rows in opened.items()} == {"train": 2, "validation": 1, "test": 1}
        for split, rows in opened.items():
            data = {"data_files": str(folder / name / f"{split}.jsonl"), "split": "train"}
            assert load(tmp_path, "json", **data).to_list() == rows.to_list()
            data["data_files"] = str(folder / name / f"{split}.parquet")
            assert load(tmp_path, "parquet", **data).to_list() == rows.to_list()
    first = samples[0]
    assert load(tmp_path, str(folder), "openai")["train"][0] == {
        "messages": [{"role": "user", "content": first.question}, {"role": "assistant", "content": first.answer}]
    }
    sharegpt = load(tmp_path, str(folder), "sharegpt")["train"][0]
    assert sharegpt["conversations"][1] == {"from": "gpt", "value": first.answer}
    assert load(tmp_path, str(folder), "alpaca")["train"][0]["output"] == first.answer
    chatml = load(tmp_path, str(folder), "chatml")["train"][0]
    assert [chatml["text"][a:b] for a, b in chatml["train"]] == [f"{first.answer}<|im_end|>"]
    text = load(tmp_path, str(folder), "text")["train"][0]
    assert (text["text"], text["train"]) == (samples[4].text, [[5, 10]])
    assert ctx.counts["openai: a text sample is not said in this format"] == 1
    assert ctx.counts["text: a chat sample is not said in this format"] == 4
    assert ctx.counts["openai: rows"] == 4


def test_card_says_what_it_is(world: Any, tmp_path: Path) -> None:
    samples, ctx = corpus(world)
    ctx.run_folder = tmp_path
    list(run(ExportConfig(kind="curate.export", formats=["openai"], title="A | mill", license="cc0-1.0"), samples, ctx))
    card = (tmp_path / "exports" / "dataset" / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert (front["license"], front["language"], front["pretty_name"]) == ("cc0-1.0", ["de"], "A | mill")
    assert front["configs"][0]["data_files"][0] == {"split": "train", "path": "openai/train.parquet"}
    for line in ("| openai | train | 2 |", "| qa | de | 4 |", f"| mill.md | {'ab' * 32} |",
                 "| questions | qa@12ab | local:ff00 | 5 |",
                 "| openai | a text sample is not said in this format | 1 |"):  # fmt: skip
        assert line in card


def test_the_same_samples_give_the_same_bytes(world: Any, tmp_path: Path) -> None:
    samples, _ = corpus(world)
    one, other = (
        write_export(samples, tmp_path / name, formats=["openai", "text"], title="Same") for name in ("one", "other")
    )
    assert [p.read_bytes() for p in one.files] == [p.read_bytes() for p in other.files]
    assert one.rows == {"openai": {"train": 2, "validation": 1, "test": 1}, "text": {"train": 1}}


def test_an_earlier_export_leaves_no_stale_file_and_nothing_else_is_touched(world: Any, tmp_path: Path) -> None:
    samples, _ = corpus(world)
    write_export(samples, tmp_path, formats=["alpaca", "text"])
    (tmp_path / "mine.txt").write_text("kept")
    done = write_export(samples[:1], tmp_path, formats=["openai"], files=["jsonl"])
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == sorted([*done.files, tmp_path / "mine.txt"])


def test_a_tier_is_written_alone_and_one_without_samples_is_no_error(world: Any, tmp_path: Path) -> None:
    samples, ctx = corpus(world)
    ctx.run_folder = tmp_path
    rated = [s.marked(judge_quality=choice) for s, choice in zip(samples[:3], ["poor", "good", "best"], strict=True)]
    config = ExportConfig(kind="curate.export", where={"judge_quality": ["good", "best"]}, files=["jsonl"])
    assert list(run(config, [*rated, samples[3]], ctx)) == [*rated, samples[3]]  # all go on
    assert (ctx.counts["openai: rows"], ctx.counts["samples not marked so"]) == (2, 2)
    written = [p for p in (tmp_path / "exports" / "dataset").rglob("*.jsonl") if p.parent.name == "openai"]
    told = [orjson.loads(line)["messages"][0]["content"] for p in written for line in p.read_bytes().splitlines()]
    assert sorted(told) == sorted(sample.question for sample in rated[1:])
    assert list(run(config, rated[:1], ctx)) == rated[:1]
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]  # nor what the run before had written
    with pytest.raises(InputError, match="no sample has the mark judge_quality"):
        list(run(config, samples, ctx))
    with pytest.raises(InputError, match="nothing to export"):
        list(run(config, [], ctx))


def changed(sample: Any, *, train: Any = True, **more: Any) -> Any:
    user, assistant = sample.messages
    return sample.model_copy(update={"messages": (user, assistant.model_copy(update={"train": train, **more}))})


@pytest.mark.parametrize(
    ("name", "reason", "change"),
    [
        ("alpaca", "more than one turn", lambda s: s.model_copy(update={"messages": s.messages * 2})),
        ("openai", "trains on a part of a message", lambda s: changed(s, train=((0, 1),))),
        ("openai", "nothing to train on", lambda s: changed(s, train=False)),
        ("chatml", "nothing to train on", lambda s: changed(s, train=False)),
        ("sharegpt", "has an answer that is not trained on",
         lambda s: s.model_copy(update={"messages": (*changed(s, train=False).messages, *s.messages)})),
        ("openai", "trains on other messages than answers",
         lambda s: s.model_copy(update={"messages": tuple(m.model_copy(update={"train": True}) for m in s.messages)})),
        ("chatml", "special token in the text", lambda s: changed(s, content="1720<|im_end|>\n<|im_start|>system")),
    ],
)  # fmt: skip
def test_what_a_format_cannot_say_is_counted(world: Any, tmp_path: Path, name: str, reason: str, change: Any) -> None:
    samples, ctx = corpus(world)
    ctx.run_folder = tmp_path
    pool = [samples[0], change(samples[1])]
    assert list(run(ExportConfig(kind="curate.export", formats=[name]), pool, ctx)) == pool
    assert (ctx.counts[f"{name}: {reason}"], ctx.counts[f"{name}: rows"]) == (1, 1)
    (line,) = (tmp_path / "exports" / "dataset" / "refused.jsonl").read_bytes().splitlines()
    assert orjson.loads(line)["id"] == pool[1].id
    assert orjson.loads(line)["reason"] == reason


def test_a_system_message_is_kept(world: Any, tmp_path: Path) -> None:
    (sample, *_), _ = corpus(world)
    told = sample.model_copy(update={"messages": (Message(role="system", content="Kurz."), *sample.messages)})
    write_export([told], tmp_path, formats=[*CHATS], files=["jsonl"])
    rows = {name: orjson.loads((tmp_path / name / "train.jsonl").read_bytes()) for name in CHATS if name != "openai"}
    assert rows["alpaca"]["system"] == "Kurz."
    assert rows["sharegpt"]["conversations"][0] == {"from": "system", "value": "Kurz."}
    assert rows["chatml"]["text"].startswith("<|im_start|>system\nKurz.<|im_end|>\n<|im_start|>user\n")


def test_an_empty_export_is_an_error(world: Any, tmp_path: Path) -> None:
    samples, _ = corpus(world)
    with pytest.raises(InputError, match="nothing to export"):
        write_export([], tmp_path, formats=["openai"])
    with pytest.raises(InputError, match=r"as openai: a text sample is not said in this format \(1\)"):
        write_export(samples[4:], tmp_path, formats=["text", "openai"])
    assert not list(tmp_path.iterdir())


def test_unknown_names_are_refused() -> None:
    for name in ("../out", "", "a/b", ".hidden"):
        with pytest.raises(ValueError, match="name"):
            ExportConfig(kind="curate.export", name=name)
