"""Every objective: how a step is split, ordered and packed changes nothing; nothing outside the mask has a gradient;
the papers' formulas; examples, settings and metrics of each."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gristmill.core.errors import InputError, Reject
from gristmill.core.records import Message, Sample
from gristmill.models.load import load_model
from gristmill.models.renderer import Renderer
from gristmill.models.weights import locate
from gristmill.train.learner import Learner
from gristmill.train.objective import Objective, objective_of
from gristmill.train.objectives.classify import Classify
from gristmill.train.objectives.kto import rated
from gristmill.train.objectives.preference import compared, rewards_of
from gristmill.train.objectives.reward import ranked
from gristmill.train.packing import Example, Packed, collate

Make = Callable[..., Any]
KINDS: dict[str, dict[str, Any]] = {
    "sft": {"kind": "train.sft"},
    "dpo": {"kind": "train.dpo", "label_smoothing": 0.1, "sft_weight": 0.2},
    "ipo": {"kind": "train.dpo", "loss": "ipo"},
    "orpo": {"kind": "train.dpo", "loss": "orpo"},
    "simpo": {"kind": "train.dpo", "loss": "simpo"},
    "kto": {"kind": "train.kto", "undesirable_weight": 1.5},
    "reward": {"kind": "train.reward", "centering": 0.1, "margin": 0.3},
    "classify": {"kind": "train.classify", "class_weights": {"river": 2.5}},
}


class Case:
    """An objective, a model that has gone some way, and examples with what the starting weights said of them."""

    def __init__(self, objective: Objective, learner: Learner, examples: list[Example]) -> None:
        self.learner = learner
        self.examples = examples
        self.total = sum(map(objective.size, examples))
        self.reference: list[Any] = []
        if objective.reference:
            every = [Example((*e.sequences, *e.beside)) for e in examples]
            self.reference = [learner.references([collate([e])])[0] for e in every]
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for parameter in learner.trained.values():
                parameter += 0.02 * torch.randn(parameter.shape, generator=generator)

    def packed(self, indices: list[int]) -> Packed:
        return collate(
            [self.examples[i] for i in indices], reference=[self.reference[i] for i in indices if self.reference]
        )

    def gradients(self, *parts: list[int]) -> tuple[float, dict[str, torch.Tensor]]:
        packed = [self.packed(indices) for indices in parts]
        self.learner.model.zero_grad()
        ask = self.learner._asking(self.total, self.learner._estimate(packed))
        values = [self.learner.reading(part, ask)[0] for part in packed]
        for value in values:
            value.backward()
        grads = {n: p.grad.clone() for n, p in self.learner.trained.items()}
        return float(sum(value.detach() for value in values)), grads


@pytest.fixture(scope="module")
def case(model_folder: Path, config: Make, taught: Make) -> Callable[[str], Case]:
    made: dict[str, Case] = {}

    def make(name: str) -> Case:
        if name not in made:
            samples = taught(KINDS[name]["kind"], 6)
            own = config(lora=None, dtype="fp32", **KINDS[name]).settled(samples)
            objective = objective_of(own)
            weights = locate(str(model_folder), base=Path("/"))
            renderer = Renderer.load(weights)
            torch.manual_seed(0)
            model = load_model(weights, head=objective.labels if objective.head == "score" else None)
            examples = [e for s in samples for e in objective.examples(s, renderer)]
            made[name] = Case(objective, Learner(model, objective, own), list(objective.beside(examples)))
        return made[name]

    return make


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=3e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_order_packing_and_micro_batches_change_nothing(name: str, case: Any, data: Any) -> None:
    """All examples in one pass, in another order, in several passes, each alone: one loss, one gradient."""
    it = case(name)
    count = len(it.examples)
    whole = it.gradients(list(range(count)))
    order = data.draw(st.permutations(range(count)))
    cuts = sorted(data.draw(st.sets(st.integers(1, count - 1))))
    parts = [list(order[a:b]) for a, b in zip([0, *cuts], [*cuts, count], strict=True)]
    split = it.gradients(*parts)
    assert split[0] == pytest.approx(whole[0], rel=1e-5)
    same(split[1], whole[1])


@pytest.mark.parametrize("name", KINDS)
def test_nothing_outside_the_mask_has_a_gradient(name: str, case: Any) -> None:
    """A token embedding has a gradient up to the last token that something is predicted from, or that a score is read
    at, and exactly none after it."""
    it = case(name)
    part = it.packed(list(range(len(it.examples))))
    seen: list[torch.Tensor] = []

    def keep(_: Any, __: Any, output: torch.Tensor) -> None:
        output.retain_grad()
        seen.append(output)

    handle = it.learner.causal.get_input_embeddings().register_forward_hook(keep)
    ask = it.learner._asking(it.total, 0.0)
    it.learner.reading(part, ask)[0].backward()
    handle.remove()
    gradient = seen[0].grad.reshape(len(part.ids), -1)
    if it.learner.objective.head == "score":
        read = list(part.ends)
    else:
        read = [int(part.ask[part.owner == at].max()) for at in range(len(part.lengths))]
    start = 0
    for last, length in zip(read, part.lengths, strict=True):
        assert (gradient[start : last + 1] != 0).any(dim=1).all()
        assert (gradient[last + 1 : start + length] == 0).all()
        start += length


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def test_preference_losses_are_the_papers(config: Make) -> None:
    """Each loss of one pair, written out with Python's own floats."""
    (lc, lj), (rc, rj), (nc, nj) = (-7.0, -9.5), (-8.0, -8.25), (4, 5)  # log-probabilities, reference, tokens

    def ours(loss: str, **more: Any) -> float:
        made = config(kind="train.dpo", loss=loss, **more)
        reference = torch.tensor([rc, rj] if loss in ("dpo", "ipo") else [0.0, 0.0], dtype=torch.float64)
        said = torch.tensor([lc, lj], dtype=torch.float64)
        rewards = rewards_of(made, said - reference, torch.tensor([nc, nj]))
        return float(compared(made, rewards[:1] - rewards[1:]))

    z = 0.1 * ((lc - rc) - (lj - rj))
    assert ours("dpo") == pytest.approx(-log_sigmoid(z), rel=1e-12)
    doubted = -0.8 * log_sigmoid(z) - 0.2 * log_sigmoid(-z)
    assert ours("dpo", label_smoothing=0.2) == pytest.approx(doubted, rel=1e-12)
    assert ours("ipo", beta=0.5) == pytest.approx((((lc - rc) / nc - (lj - rj) / nj) - 1) ** 2, rel=1e-12)
    odds = [math.exp(m) / (1 - math.exp(m)) for m in (lc / nc, lj / nj)]
    assert ours("orpo", beta=0.3) == pytest.approx(-0.3 * log_sigmoid(math.log(odds[0] / odds[1])), rel=1e-12)
    assert ours("simpo", gamma=0.5) == pytest.approx(-log_sigmoid(2 * (lc / nc - lj / nj) - 0.5), rel=1e-12)


def test_a_certain_answer_has_finite_odds(config: Make) -> None:
    said = torch.tensor([0.0, -1.0], requires_grad=True)
    rewards = rewards_of(config(kind="train.dpo", loss="orpo"), said, torch.tensor([1, 1]))
    rewards.sum().backward()
    assert rewards.isfinite().all() and said.grad.isfinite().all()


def test_rating_and_ranking_are_the_papers(config: Make) -> None:
    kto = config(kind="train.kto", beta=0.2, desirable_weight=2.0, undesirable_weight=3.0)
    losses = rated(kto, torch.tensor([1.5, -2.0], dtype=torch.float64), torch.tensor([True, False]), kl=0.5)
    good, bad = (1 / (1 + math.exp(-0.2 * x)) for x in (1.5 - 0.5, 0.5 + 2.0))
    assert losses.tolist() == pytest.approx([2 * (1 - good), 3 * (1 - bad)], rel=1e-12)
    reward = config(kind="train.reward", margin=0.4, centering=0.01)
    one = ranked(reward, torch.tensor([1.2], dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64))
    assert one.item() == pytest.approx(-log_sigmoid(1.2 - 0.3 - 0.4) + 0.01 * 1.5**2, rel=1e-12)


def renderer_of(folder: Path) -> Renderer:
    return Renderer.load(locate(str(folder), base=Path("/")))


def say(role: Any, content: str, *, train: Any = False) -> Message:
    return Message(role=role, content=content, train=train)


def test_a_pair_shares_its_prompt_and_learns_its_answers(model_folder: Path, config: Make) -> None:
    renderer = renderer_of(model_folder)
    asked = (say("user", "Is it?"), say("assistant", "Perhaps.", train=True), say("user", "So?"))
    sample = Sample(
        form="preference",
        kind="qa",
        messages=asked,
        chosen=(say("assistant", "Yes.", train=True),),
        rejected=(say("assistant", "No, not at all.", train=True),),
    )
    (example,) = objective_of(config(kind="train.dpo")).examples(sample, renderer)
    told = [renderer.decode(tokens.ids[tokens.mask], special=True) for tokens in example.sequences]
    assert told == ["Yes.<|im_end|>", "No, not at all.<|im_end|>"]
    starts = [tokens.ids[: int(np.argmax(tokens.mask))].tolist() for tokens in example.sequences]
    assert starts[0] == starts[1] == renderer.chat(asked, generate=True).ids
    silent = sample.model_copy(update={"rejected": (say("assistant", "No."),)})
    with pytest.raises(Reject, match="nothing to train on"):
        objective_of(config(kind="train.dpo")).examples(silent, renderer)


def test_too_long_a_pair_is_dropped_or_cut(model_folder: Path, config: Make) -> None:
    long = (say("assistant", "No, not at all. " * 30, train=True),)
    sample = Sample(
        form="preference",
        kind="qa",
        messages=(say("user", "Is it?"),),
        chosen=(say("assistant", "Yes.", train=True),),
        rejected=long,
    )
    with pytest.raises(Reject, match="longer than the context"):
        objective_of(config(kind="train.dpo", context=64)).examples(sample, renderer_of(model_folder))
    cut = objective_of(config(kind="train.dpo", context=64, truncation="cut"))
    (example,) = cut.examples(sample, renderer_of(model_folder))
    assert [len(tokens) for tokens in example.sequences][1] == 64


@pytest.mark.parametrize("kind", ["train.dpo", "train.reward"])
def test_equal_answers_are_no_pair(kind: str, model_folder: Path, config: Make) -> None:
    """Equal as they stand, or once they are cut: behind the context lies what differs."""
    renderer = renderer_of(model_folder)
    cut = objective_of(config(kind=kind, context=64, truncation="cut"))

    def pair(question: str, *answers: str) -> Sample:
        chosen, rejected = ((say("assistant", answer, train=True),) for answer in answers)
        asked = (say("user", question),)
        return Sample(form="preference", kind="qa", messages=asked, chosen=chosen, rejected=rejected)

    alike = [pair("Is it?", "Yes.", "Yes."), pair("Is it? " * 50, "Yes.", "No.")]
    alike.append(pair("Is it?", "Not at all. " * 30 + "a", "Not at all. " * 30 + "b"))
    for sample in alike:
        with pytest.raises(Reject, match="nothing tells the two answers apart"):
            cut.examples(sample, renderer)
    assert len(cut.examples(pair("Is it?", "Yes.", "Yes. Yes."), renderer)) == 1


def test_a_prompt_is_answered_by_another_prompt_beside_it(model_folder: Path, config: Make) -> None:
    """Two ratings of one prompt, as they stand in tables, are never each other's mismatch; the last takes from the
    first."""
    renderer, objective = renderer_of(model_folder), objective_of(config(kind="train.kto"))
    asked = ["Is it?", "Is it?", "Was it?", "Will it be?"]
    samples = [
        Sample(
            form="rating",
            kind="qa",
            messages=(say("user", question), say("assistant", f"Answer {n}.", train=True)),
            desirable=n % 2 == 0,
        )
        for n, question in enumerate(asked)
    ]
    examples = list(objective.beside([e for s in samples for e in objective.examples(s, renderer)]))
    shown = [renderer.decode(e.beside[0].ids, special=False) for e in examples]
    answers = [renderer.decode(e.beside[0].ids[e.beside[0].mask]) for e in examples]
    assert answers == ["Answer 2.", "Answer 2.", "Answer 3.", "Answer 0."]
    assert all(question in text for question, text in zip(asked, shown, strict=True))
    assert [e.values for e in examples] == [(1.0,), (0.0,), (1.0,), (0.0,)]
    alone = list(objective.beside(examples[:1]))
    assert len(alone) == 1


def test_a_score_is_read_before_the_padding(model_folder: Path, config: Make) -> None:
    """Where the token that pads also ends a turn, other libraries read one token earlier: so do we."""
    renderer, objective = renderer_of(model_folder), objective_of(config(kind="train.reward"))
    pair = {"chosen": (say("assistant", "Yes."),), "rejected": (say("assistant", "No."),)}
    sample = Sample(form="preference", kind="qa", messages=(say("user", "Is it?"),), **pair)
    (example,) = objective.examples(sample, renderer)
    assert [renderer.decode(t.ids[-2:], special=True) for t in example.sequences] == ["<|im_end|>\n"] * 2
    renderer.__dict__["pad"] = int(example.sequences[0].ids[-1])  # as if it were the last token of a turn
    (shorter,) = objective.examples(sample, renderer)
    del renderer.__dict__["pad"]
    assert [len(t) for t in shorter.sequences] == [len(t) - 1 for t in example.sequences]


def labelled(*labels: str) -> list[Sample]:
    return [Sample(form="labelled", kind="x", text=f"A letter, {n}.", label=label) for n, label in enumerate(labels)]


def test_classes_are_those_of_the_samples_sorted(model_folder: Path, config: Make) -> None:
    made = config(kind="train.classify").settled(labelled("hill", "coast", "hill"))
    assert made.labels == ["coast", "hill"]
    objective = objective_of(made)
    (example,) = objective.examples(labelled("hill")[0], renderer_of(model_folder))
    assert example.values == (1.0, 1.0)
    assert example.sequences[0].ids.tolist() == renderer_of(model_folder).encode("A letter, 0.")
    with pytest.raises(Reject, match="not among the labels"):
        objective.examples(labelled("river")[0], renderer_of(model_folder))
    stated = config(kind="train.classify", labels=["river", "hill"])
    assert stated.settled(labelled("hill")).labels == ["river", "hill"]
    with pytest.raises(InputError, match="two classes or more"):
        config(kind="train.classify").settled(labelled("hill", "hill"))
    with pytest.raises(InputError, match="class_weights names no class"):
        config(kind="train.classify", class_weights={"sea": 2.0}).settled(labelled("hill", "coast"))


def test_accuracy_and_macro_f1(config: Make) -> None:
    """Of 4 a and 1 b, answered a a b a b: F1 of a is 6/7, of b 2/3; c neither occurs nor is answered."""
    objective = Classify(config(kind="train.classify", labels=["a", "b", "c"]))
    right, given, held = [3.0, 1.0, 0.0], [3.0, 2.0, 0.0], [4.0, 1.0, 0.0]
    counted = {"right": right, "given": given, "held": held}
    sums = {f"{what}/{n}": value for what, values in counted.items() for n, value in enumerate(values)}
    told = objective.metrics(sums, 99.0)
    assert told == pytest.approx({"accuracy": 4 / 5, "macro_f1": (6 / 7 + 2 / 3) / 2})


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "train.dpo", "gamma": 0.5},
        {"kind": "train.dpo", "loss": "ipo", "label_smoothing": 0.1},
        {"kind": "train.dpo", "label_smoothing": 0.5},
        {"kind": "train.dpo", "loss": "rlhf"},
        {"kind": "train.kto", "beta": 0},
        {"kind": "train.classify", "labels": ["a", "a"]},
        {"kind": "train.classify", "labels": ["a"]},
        {"kind": "train.reward", "sample_every": 2, "sample_prompts": ["Who?"]},
        {"kind": "train.classify", "class_weights": {"a": 0}},
    ],
)
def test_settings_that_do_not_fit_are_refused(wrong: Any, config: Make) -> None:
    with pytest.raises(ValueError):
        config(**wrong)
