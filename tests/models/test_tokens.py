"""New tokens and templates, and adapters of every kind: what is merged and what is written is what was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from peft import LoraConfig as PeftConfig
from peft import get_peft_model
from tests.models.chat_models import TRIMMING
from tests.models.tiny import tiny_weights

from gristmill.core.errors import ConfigError
from gristmill.core.records import Message
from gristmill.models import checkpoint
from gristmill.models.adapter import write_adapter
from gristmill.models.load import load_model
from gristmill.models.merge import write_merged
from gristmill.models.renderer import Renderer
from gristmill.models.tokens import HeadBeside, add_rows, renderer_of, train_rows
from gristmill.models.weights import Weights, at_folder

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
NEW = ["<|note|>", "Zyxwv"]
NOTED = "{% for m in messages %}{{'<|note|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n'}}{% endfor %}" + (
    "{% if add_generation_prompt %}{{ '<|note|>assistant\n' }}{% endif %}"
)
VARIANTS: dict[str, dict[str, Any]] = {"lora": {}, "rslora": {"use_rslora": True}, "dora": {"use_dora": True}}


def adapted(model: Any, **variant: Any) -> Any:
    """Adapters that change the model, at work in it."""
    settings = PeftConfig(r=4, lora_alpha=6, target_modules="all-linear", task_type="CAUSAL_LM", **variant)
    peft = get_peft_model(model, settings)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_" in name:
                parameter += torch.randn(parameter.shape, generator=generator) * 0.05
    return peft.eval()


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return tiny_weights(tmp_path_factory.mktemp("tiny"), tied=request.param)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("new", [[], NEW], ids=["", "new tokens"])
def test_merged_is_adapted_and_so_is_what_peft_loads(
    variant: str, new: list[str], weights: Weights, tmp_path: Path
) -> None:
    renderer = renderer_of(weights, new_tokens=new)
    base = load_model(weights)
    add_rows(base, renderer, seed=3, apart=True)
    model = adapted(base, **VARIANTS[variant])
    write_merged(model, tmp_path / "final", renderer=renderer, base=weights)
    write_adapter(model, tmp_path / "adapter", renderer=renderer, base=weights)
    ids = torch.tensor([renderer.encode("The mill of Zyxwv was built in 1234.") + list(renderer.vocabulary.added)])
    with torch.no_grad():
        expected = model(ids).logits
        merged = load_model(at_folder(tmp_path / "final"))
        torch.testing.assert_close(merged(ids).logits, expected, rtol=1e-4, atol=1e-4)
        from peft import PeftModel

        plain = load_model(weights)
        plain.resize_token_embeddings(merged.config.vocab_size, mean_resizing=False)
        theirs = PeftModel.from_pretrained(plain, str(tmp_path / "adapter"))
        torch.testing.assert_close(theirs(ids).logits, expected, rtol=1e-4, atol=1e-4)
        assert (load_model(weights)(ids[:, :4]).logits - expected[:, :4, :400]).abs().max() > 0.1


def test_only_the_new_rows_move_beside_adapters(weights: Weights) -> None:
    renderer = renderer_of(weights, new_tokens=NEW)
    base = load_model(weights)
    add_rows(base, renderer, seed=3, apart=True)
    before = base.get_input_embeddings().weight.detach().clone()
    model = adapted(base)
    train_rows(model)
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad and "lora_" not in n]
    assert len(trained) == (1 if base.config.tie_word_embeddings else 2)
    assert all(p.shape == (2, 64) and p.dtype == torch.float32 for _, p in trained)
    model(torch.tensor([[1, 400, 5, 401, 9]])).logits.logsumexp(-1).sum().backward()
    assert all(p.grad is not None and (p.grad.abs().sum(1) > 0).all() for _, p in trained)
    with torch.no_grad():
        for _, p in trained:
            p -= p.grad
    after = base.get_input_embeddings().weight
    assert torch.equal(before[:400], after[:400]) and not torch.equal(before[400:], after[400:])


def test_rows_begin_at_the_mean_and_by_the_seed(weights: Weights) -> None:
    def rows(seed: int, apart: bool) -> torch.Tensor:
        model = load_model(weights)
        add_rows(model, renderer_of(weights, new_tokens=NEW), seed=seed, apart=apart)
        assert model.config.vocab_size == 402
        found: torch.Tensor = model.get_input_embeddings().weight.detach()[400:]
        return found

    known = load_model(weights).get_input_embeddings().weight.detach()
    assert torch.equal(rows(3, True), rows(3, False))
    assert not torch.equal(rows(3, True), rows(4, True))
    assert ((rows(3, True) - known.mean(0)).abs() < 0.05 * known.std(0)).all()
    assert not torch.equal(*rows(3, True))


def test_a_control_token_is_written_by_the_template_alone_and_a_word_wherever_it_stands(weights: Weights) -> None:
    renderer = renderer_of(weights, new_tokens=NEW, template=NOTED)
    note, word = renderer.vocabulary.added
    assert renderer.encode("at Zyxwv<|note|>").count(word) == 1 and note not in renderer.encode("<|note|>")
    chat = renderer.chat([Message(role="user", content="<|note|>")], generate=True)
    assert chat.ids.count(note) == 2
    assert renderer_of(weights).chat([Message(role="user", content="Hi")]).ids != chat.ids
    with pytest.raises(ConfigError, match="already"):
        renderer_of(weights, new_tokens=["<|im_end|>"])
    with pytest.raises(ConfigError, match="twice"):
        renderer_of(weights, new_tokens=["Zyxwv", "Zyxwv"])


def test_a_written_vocabulary_is_read_alike_by_us_and_by_transformers(weights: Weights, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    renderer = renderer_of(weights, new_tokens=NEW, template=NOTED)
    model = load_model(weights)
    add_rows(model, renderer, seed=1, apart=False)
    write_merged(model, tmp_path / "m", renderer=renderer, base=weights)
    assert checkpoint.verify(tmp_path / "m").metadata["template"] == renderer.template_hash
    again, theirs = Renderer.load(at_folder(tmp_path / "m")), AutoTokenizer.from_pretrained(tmp_path / "m")
    talk = [Message(role="user", content="Is it Zyxwv?"), Message(role="assistant", content="Yes, Zyxwv.", train=True)]
    rendered = renderer.chat(talk)
    assert again.chat(talk) == rendered and set(renderer.vocabulary.added) <= set(rendered.ids)
    plain = [{"role": m.role, "content": m.content} for m in talk]
    assert theirs.apply_chat_template(plain)["input_ids"] == rendered.ids
    assert theirs.convert_tokens_to_ids(NEW) == list(renderer.vocabulary.added)


def test_a_template_s_own_end_of_turn_ends_generation(weights: Weights, tmp_path: Path) -> None:
    ends = TRIMMING.replace("<|im_end|>", "<|note|>")
    renderer = renderer_of(weights, new_tokens=NEW, template=ends)
    model = load_model(weights)
    add_rows(model, renderer, seed=1, apart=False)
    write_merged(model, tmp_path / "m", renderer=renderer, base=weights)
    note = renderer.vocabulary.added[0]
    assert note in orjson.loads((tmp_path / "m" / "generation_config.json").read_bytes())["eos_token_id"]
    assert note in Renderer.load(at_folder(tmp_path / "m")).stop_ids


@pytest.mark.parametrize("first", [7, 10])
@pytest.mark.parametrize("biased", [False, True])
def test_a_grown_heads_parts_give_what_its_whole_matrix_gives(first: int, *, biased: bool) -> None:
    """Rows in place of the base's last ones, and behind them all, where the base's bias is too short."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(6, 10, bias=biased)
    head = HeadBeside(layer, torch.nn.Parameter(torch.randn(3, 6)), first)
    hidden = torch.randn(2, 4, 6)
    whole = hidden @ head.weight.T
    if biased:
        whole[..., :10] += layer.bias
    torch.testing.assert_close(head(hidden), whole)
