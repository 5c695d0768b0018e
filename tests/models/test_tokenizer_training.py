"""A tokenizer from a corpus: the same every time, read alike by all, and of use to other stages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.runs.project import PLACES, Project

from gristmill.core.errors import InputError
from gristmill.core.records import Document, Message, Sample
from gristmill.models.renderer import Renderer
from gristmill.models.weights import locate_tokenizer
from gristmill.train.tokenizer import run
from gristmill.train.tokenizer_config import TokenizerConfig

RECIPE = Path(__file__).parents[2] / "recipes" / "tokenizer.yaml"


class Here:
    """As much of a pass's context as it needs."""

    def __init__(self, folder: Path) -> None:
        self.folder = self.base = folder
        self.metrics: list[dict[str, Any]] = []

    def stopping(self) -> bool:
        return False

    def metric(self, **values: Any) -> None:
        self.metrics.append(values)


def corpus() -> list[Any]:
    text = "The mill of Orvale grinds 1234 sacks of rye. Très bien, 東京 🙂\n\n"
    document = Document(path="a", title="a", text=text * 9, language="en", media_type="text/plain")
    said = (Message(role="user", content="Who grinds rye?"), Message(role="assistant", content="The mill of Orvale."))
    return [document, *(Sample(form="chat", kind=f"qa{at}", messages=said) for at in range(5))]


def config(**changes: Any) -> TokenizerConfig:
    return TokenizerConfig.model_validate({"kind": "train.tokenizer", "vocab_size": 300, **changes})


def made(folder: Path, **changes: Any) -> tuple[Any, Renderer]:
    folder.mkdir()
    [record] = run(config(**changes), corpus(), Here(folder))  # type: ignore[arg-type]
    return record, Renderer.load(locate_tokenizer(str(folder / "tokenizer"), base=Path("/")))


def test_it_is_read_alike_by_us_and_by_transformers(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    record, renderer = made(tmp_path / "a")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "a" / "tokenizer")
    talk = [Message(role="user", content="Ünseen 東 <|im_end|>?"), Message(role="assistant", content="No.", train=True)]
    ids = renderer.chat(talk).ids
    safe = renderer.chat([talk[0].model_copy(update={"content": "Ünseen 東?"}), talk[1]])
    plain = [{"role": "user", "content": "Ünseen 東?"}, {"role": "assistant", "content": "No."}]
    assert theirs.apply_chat_template(plain)["input_ids"] == safe.ids
    assert renderer.decode(ids, special=True).count("<|im_end|>") == 3 and ids.count(theirs.eos_token_id) == 2
    assert renderer.decode(renderer.encode("Ünseen 東 🙂")) == "Ünseen 東 🙂" and len(theirs) == 300
    data = record.data
    assert data["vocabulary"] == 300 and 1 < data["bytes_per_token"] < 8 and 1 < data["tokens_per_word"] < 8
    assert renderer.turn_end == theirs.eos_token_id


def test_the_same_texts_give_the_same_tokenizer_in_any_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.models.test_tokenizer_training import made\n"
        "made(Path(sys.argv[1]), cut='qwen2')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], check=True)
    made(tmp_path / "b", cut="qwen2")
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / n / "tokenizer").iterdir()} for n in "ab")
    assert first == second and {"vocab.json", "merges.txt", "tokenizer.json", "chat_template.jinja"} <= first.keys()


def test_settings_that_cannot_be_and_texts_that_are_not_there_are_refused(tmp_path: Path) -> None:
    for wrong in ({"eos": "<|no|>"}, {"vocab_size": 257}, {"special_tokens": ["<|im_end|>", "<|im_end|>"]}):
        with pytest.raises(ValueError):
            config(**wrong)
    with pytest.raises(InputError, match="no text"):
        list(run(config(), [], Here(tmp_path)))  # type: ignore[arg-type]
    _, renderer = made(tmp_path / "plain", special_tokens=["<|endoftext|>"], eos="<|endoftext|>")
    assert not renderer.chats


def test_the_recipe_trains_one_and_chunks_are_measured_with_it(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.add(*PLACES[:4])
    settings = ("--set", f'stages.read.paths=["{tmp_path}/documents"]', "--set", "stages.tokenizer.vocab_size=400")
    outcome = json.loads(project.run("run", RECIPE, "--json", "--name", "words", *settings).stdout)
    assert outcome["state"] == "finished"
    folder = Path(outcome["folder"])
    assert (folder / "checkpoints/tokenizer/tokenizer.json").is_file()
    assert (
        str(tmp_path / "out")
        in project.run("export", "words", "--format", "tokenizer", "--to", tmp_path / "out").stdout
    )
    assert "control tokens" in (tmp_path / "out/README.md").read_text()
    stages = {
        "read": {"kind": "ingest.read", "paths": ["documents"]},
        "chunks": {"kind": "ingest.chunk", "tokens": 40, "tokenizer": "out"},
    }
    project.write("recipe.yaml", yaml.safe_dump({"name": "measured", "stages": stages}, sort_keys=False))
    counted = [json.loads(row["body"]) for row in project.records(project.go(), "chunks")]
    renderer = Renderer.load(locate_tokenizer("out", base=tmp_path))
    assert counted and all(chunk["tokens"] == renderer.count(chunk["text"]) <= 40 for chunk in counted)
