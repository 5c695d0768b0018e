"""The gates before a folder or an adapter leaves: the trained model passes, a changed one does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.models.test_tokens import NEW, NOTED, adapted
from tests.models.tiny import tiny_weights

from gristmill.core.errors import CheckpointError, ConfigError
from gristmill.core.records import Message
from gristmill.models.adapter import write_adapter
from gristmill.models.export_gate import prove_adapter, prove_folder
from gristmill.models.load import load_model
from gristmill.models.merge import write_merged, write_rounded
from gristmill.models.ollama import modelfile
from gristmill.models.renderer import Renderer
from gristmill.models.tokens import add_rows, renderer_of
from gristmill.models.weights import Weights, at_folder

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
FEW = {"prompts": ("When was the mill built?", "Où est la gare? 東京はどこですか。 🙂")}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return tiny_weights(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def trained(base: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`final` and `adapter`, with new tokens, over a base that was rounded to bfloat16."""
    folder = tmp_path_factory.mktemp("trained")
    renderer = renderer_of(base, new_tokens=NEW, template=NOTED)
    model = load_model(base, dtype="bfloat16")
    add_rows(model, renderer, seed=3, apart=True)
    with torch.no_grad():
        tuned = adapted(model, use_dora=True)
        write_merged(tuned, folder / "final", renderer=renderer, base=base)
        write_adapter(tuned, folder / "adapter", renderer=renderer, base=base)
    return folder


def change(path: Path, name: str, by: float) -> None:
    tensors = load_file(path)
    found = next(key for key in tensors if name in key)
    tensors[found] = tensors[found] + by
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_a_folder_is_the_trained_model_or_is_refused(trained: Path, dtype: str, tmp_path: Path) -> None:
    weights = at_folder(trained / "final")
    write_rounded(weights.path, tmp_path, dtype=dtype)
    assert orjson.loads((tmp_path / "config.json").read_bytes())["dtype"] == dtype
    read = prove_folder(weights, tmp_path, dtype=dtype, **FEW)
    assert read.tokens > 40 and (read.divergence == 0 if dtype == "float32" else 0 < read.divergence < 0.1)
    if dtype == "bfloat16":
        return
    change(tmp_path / "model.safetensors", "layers.1.self_attn.v_proj", 1e-4)
    with pytest.raises(CheckpointError, match="its logits differ"):
        prove_folder(weights, tmp_path, dtype=dtype, **FEW)


@pytest.mark.slow
def test_another_tokenizer_is_refused(trained: Path, tmp_path: Path) -> None:
    weights = at_folder(trained / "final")
    write_rounded(weights.path, tmp_path, dtype="float32")
    tokenizer = orjson.loads((tmp_path / "tokenizer.json").read_bytes())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:20]
    (tmp_path / "tokenizer.json").write_bytes(orjson.dumps(tokenizer))
    with pytest.raises(CheckpointError, match="other tokens"):
        prove_folder(weights, tmp_path, dtype="float32", **FEW)


def test_numbers_that_do_not_fit_are_refused(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "out").mkdir()
    for file in (trained / "final").iterdir():
        (tmp_path / "big" / file.name).write_bytes(file.read_bytes())
    change(tmp_path / "big" / "model.safetensors", "norm.weight", 1e6)
    with pytest.raises(ConfigError, match="do not fit float16"):
        write_rounded(tmp_path / "big", tmp_path / "out", dtype="float16")


@pytest.mark.slow
def test_an_adapter_over_its_base_is_the_merged_model_or_is_refused(
    base: Weights, trained: Path, tmp_path: Path
) -> None:
    weights = at_folder(trained / "final")
    for file in (trained / "adapter").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    read = prove_adapter(weights, tmp_path, base=base, dtype="bfloat16", **FEW)
    assert read.divergence < 2e-5
    change(tmp_path / "adapter_model.safetensors", "layers.0.mlp.down_proj.lora_B", 0.05)
    with pytest.raises(CheckpointError, match="is not the trained model"):
        prove_adapter(weights, tmp_path, base=base, dtype="bfloat16", **FEW)


def expand(go: str, talk: list[Message]) -> str:
    """What Ollama's template engine makes of the form that `modelfile` writes."""
    opening, _, rest = go.partition("{{ range .Messages }}")
    body, _, generate = rest.partition("{{ end }}{{ end }}")
    begin = opening.partition(" }}")[2].removesuffix("{{ end }}") if talk[0].role != "system" else ""
    cases: dict[str, Any] = {}
    for case in body.removeprefix("{{ if ").replace("{{ else if ", "{{ if ").split("{{ if "):
        role, _, text = case.removeprefix('eq .Role "').partition('" }}')
        cases[role] = text
    return begin + "".join(cases[m.role].replace("{{ .Content }}", m.content) for m in talk) + generate


def test_a_modelfile_says_the_template_or_is_not_written(base: Weights, tmp_path: Path) -> None:
    renderer = Renderer.load(base)
    said = modelfile(renderer, "m.gguf")
    assert said is not None and said.startswith("FROM ./m.gguf\n") and 'PARAMETER stop "<|im_end|>"' in said
    go = said.partition('TEMPLATE """')[2].partition('"""')[0]
    system = Message(role="system", content="Be short.")
    talk = [Message(role=r, content=f"{r} says") for r in ("user", "assistant", "user")]  # type: ignore[arg-type]
    for conversation in (talk, [system, *talk], talk[:1]):
        assert expand(go, conversation) == renderer.chat(conversation, generate=True).text
    number = "m['role'] + ('' if m['role'] == 'assistant' else loop.index|string)"
    numbered = NOTED.replace("m['role']", number).replace("<|note|>", "<|im_start|>")
    assert modelfile(renderer_of(base, template=numbered), "m.gguf") is None
