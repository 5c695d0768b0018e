"""What the loss sees, and what is said of it before step 1: every mask, every form, and no end forgotten."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gristmill.core.errors import ConfigError, InputError, Reject
from gristmill.core.records import Message, Sample
from gristmill.models.renderer import Renderer
from gristmill.models.weights import locate
from gristmill.train.examples import CLOSE, OPEN, Tally, endless, examples_of, mask_report
from gristmill.train.kinds import ClassifyConfig, KtoConfig, PreferenceConfig
from gristmill.train.objective import Objective, objective_of
from gristmill.train.packing import Example, Tokens, collate
from gristmill.train.run import run

Make = Callable[..., Any]


@pytest.fixture(scope="session")
def renderer(model_folder: Path) -> Renderer:
    return Renderer.load(locate(str(model_folder), base=Path("/")))


def user(text: str) -> Message:
    return Message(role="user", content=text)


def answer(text: str, train: Any = True) -> Message:
    return Message(role="assistant", content=text, train=train)


def chat(*messages: Message) -> Sample:
    return Sample(form="chat", kind="qa", messages=messages)


def seen(example: Example, renderer: Renderer) -> list[str]:
    return [renderer.decode(tokens.ids[tokens.mask].tolist(), special=True) for tokens in example.sequences]


def report_of(objective: Objective, renderer: Renderer, *samples: Sample) -> dict[str, Any]:
    tally = Tally(renderer)
    for sample in samples:
        tally.add(sample, examples_of(sample, objective, renderer))
    return mask_report(tally, Tally(renderer), objective)


@pytest.mark.parametrize(
    ("train", "expected"),
    [(True, "In 1720, by Orvale.<|im_end|>"), (((2, 7),), " 1720"), (((0, 2), (11, 19)), "In Orvale.")],
)
def test_a_message_a_span_and_segments_left_out(train: Any, expected: str, config: Make, renderer: Renderer) -> None:
    objective = objective_of(config())
    said = chat(user("When?"), answer("In 1720, by Orvale.", train))
    (example,) = examples_of(said, objective, renderer)
    assert seen(example, renderer) == [expected]


def test_a_stop_token_that_pads_too_is_trained(model_folder: Path, tmp_path: Path, config: Make) -> None:
    """A model whose padding token is its end token: masks come from places, so the end is still learned."""
    folder = tmp_path / "padded"
    shutil.copytree(model_folder, folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings["pad_token"] = settings["eos_token"]
    path.write_text(json.dumps(settings))
    path = folder / "config.json"
    ids = json.loads(path.read_text())
    path.write_text(json.dumps(ids | {"pad_token_id": ids["eos_token_id"]}))
    padded = Renderer.load(locate(str(folder), base=Path("/")))
    assert padded.pad == padded.eos
    said = [chat(user("When?"), answer("In 1720.")), Sample(form="text", kind="passage", text="Orvale.")]
    for sample in said:
        (example,) = examples_of(sample, objective_of(config()), padded)
        assert seen(example, padded)[0].endswith("<|im_end|>")
        assert collate([example]).targets[-1] == padded.eos
    assert report_of(objective_of(config()), padded, *said)["stop_supervised"] is True


def test_a_template_that_forgets_the_end_is_refused(model_folder: Path, tmp_path: Path, config: Make) -> None:
    """A turn that ends in ordinary text: a model taught so talks on for ever."""
    folder = tmp_path / "endless"
    shutil.copytree(model_folder, folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings["chat_template"] = settings["chat_template"].replace("+ '<|im_end|>' + '\n'", "+ '\n'")
    path.write_text(json.dumps(settings))
    endless = Renderer.load(locate(str(folder), base=Path("/")))
    with pytest.raises(ConfigError, match="could not learn to stop"):
        examples_of(chat(user("When?"), answer("In 1720.")), objective_of(config()), endless)


def test_a_long_chat_is_dropped_or_cut_and_said(config: Make, renderer: Renderer) -> None:
    long = chat(user("When?"), answer("In 1720, by the people. " * 20))
    short = chat(user("When?"), answer("In 1720."))
    with pytest.raises(Reject, match="longer than the context"):
        examples_of(long, objective_of(config(context=64)), renderer)
    objective = objective_of(config(context=64, truncation="cut"))
    (example,) = examples_of(long, objective, renderer)
    whole = renderer.chat(long.messages)
    (tokens,) = example.sequences
    assert (tokens.ids.tolist(), tokens.mask.tolist()) == (whole.ids[:64], whole.mask[:64])
    assert tokens.left_out == len(whole.ids) - 64
    report = report_of(objective, renderer, long, short)
    assert (report["cut"], report["stop_supervised"], report["samples"]) == (1, False, 2)


def test_a_long_text_is_cut_into_pieces_whatever_the_setting(config: Make, renderer: Renderer) -> None:
    text = Sample(form="text", kind="passage", text="Orvale lies by the river. " * 30)
    for truncation in ("drop", "cut"):
        made = examples_of(text, objective_of(config(context=32, truncation=truncation)), renderer)
        asked = np.concatenate([collate([example]).targets for example in made])
        whole = renderer.text(text.text).ids
        assert asked.tolist() == whole[1:]
        assert all(len(example) <= 32 for example in made)


def test_both_sides_of_a_pair_fit_the_context(renderer: Renderer) -> None:
    def pair(bad: str) -> Sample:
        sides = {"chosen": (answer("In 1720."),), "rejected": (answer(bad),)}
        return Sample(form="preference", kind="qa", messages=(user("When?"),), **sides)

    settings = {"kind": "train.dpo", "model": "student", "context": 64}
    objective = objective_of(PreferenceConfig.model_validate(settings))
    with pytest.raises(Reject, match="longer than the context"):
        examples_of(pair("Nobody knows. " * 20), objective, renderer)
    cut = objective_of(PreferenceConfig.model_validate({**settings, "truncation": "cut"}))
    (example,) = examples_of(pair("Nobody knows. " * 20), cut, renderer)
    assert [len(tokens) <= 64 for tokens in example.sequences] == [True, True]
    report = report_of(objective, renderer, pair("Nobody knows."))
    chosen, _, rejected = report["shown"]["preference"].partition("rejected:")
    assert chosen.startswith("chosen:") and f"{OPEN}In 1720.<|im_end|>{CLOSE}" in chosen
    assert f"{OPEN}Nobody knows.<|im_end|>{CLOSE}" in rejected
    assert report["stop_supervised"] is True


SPANS = ((0, 2),)
PARTLY = chat(user("When?"), answer("In 1720.", SPANS))
WHOLE = chat(user("When?"), answer("In 1720."))
LINE = Sample(form="text", kind="passage", text="Orvale lies by the river. Page 3", train=((0, 25),))
PAGE = Sample(form="text", kind="passage", text="Orvale lies by the river. " * 30)


@pytest.mark.parametrize(
    ("given", "stops"),
    [
        ([WHOLE, PAGE], (2, 0)),  # a text in pieces ends once
        ([PAGE], (1, 0)),
        ([WHOLE, PARTLY, LINE], (1, 2)),
        ([LINE], (0, 1)),
    ],
)
def test_what_teaches_to_stop_is_counted(
    given: list[Sample], stops: tuple[int, int], config: Make, renderer: Renderer
) -> None:
    report = report_of(objective_of(config(context=64)), renderer, *given)
    assert report["stops"] == {"taught": stops[0], "not": stops[1]}
    assert report["stop_supervised"] is (stops[1] == 0)
    said = endless(report)
    assert said.startswith(f"{stops[1]} of {sum(stops)} ") if stops[1] else not said


@pytest.mark.parametrize("beside", [[], [LINE]])
@pytest.mark.parametrize(
    "endless_chat", [PARTLY, chat(user("When?"), answer("In 1720, by the people. " * 20))], ids=["spans", "cut"]
)
def test_answers_without_any_end_are_refused(
    endless_chat: Sample, beside: list[Sample], config: Make, renderer: Renderer
) -> None:
    objective = objective_of(config(context=64, truncation="cut"))
    with pytest.raises(InputError, match="no sample teaches to stop"):
        report_of(objective, renderer, endless_chat, endless_chat, *beside)
    assert report_of(objective, renderer, endless_chat, WHOLE, *beside)["stops"]["taught"] == 1


def test_a_training_says_once_what_does_not_teach_to_stop(context: Make, config: Make) -> None:
    said = "1 of 2 trained conversations and texts do not teach where to stop"
    for given, warnings in (([WHOLE, PARTLY], [said]), ([WHOLE, PAGE], [])):
        ctx = context(str(len(warnings)))
        list(run(config(steps=1, warmup_steps=0), given, ctx))
        assert ctx.warnings == warnings
        report = json.loads((ctx.folder / "mask_report.json").read_bytes())
        assert report["stops"]["not"] == len(warnings)


def test_pairs_teach_to_stop_in_both_answers_or_are_refused(renderer: Renderer) -> None:
    objective = objective_of(PreferenceConfig(kind="train.dpo", model="student", context=64))

    def pair(chosen: Any, rejected: Any) -> Sample:
        sides = {"chosen": (answer("In 1720.", chosen),), "rejected": (answer("Nobody knows.", rejected),)}
        return Sample(form="preference", kind="qa", messages=(user("When?"),), **sides)

    assert report_of(objective, renderer, pair(True, SPANS))["stops"] == {"taught": 1, "not": 1}
    with pytest.raises(InputError, match="no sample teaches to stop"):
        report_of(objective, renderer, pair(SPANS, SPANS))


def test_every_form_is_counted_and_shown_with_its_verdict(renderer: Renderer) -> None:
    rated = Sample(form="rating", kind="qa", messages=(user("When?"), answer("In 1720.")), desirable=False)
    report = report_of(objective_of(KtoConfig(kind="train.kto", model="student", context=64)), renderer, rated, rated)
    assert report["kinds"] == {"rating/qa": 2}
    assert report["shown"]["rating"].endswith("→ bad")
    assert 0 < report["supervised"] < report["tokens"] and report["share"] == round(
        report["supervised"] / report["tokens"], 4
    )
    letter = Sample(form="labelled", kind="letter", text="The gate is broken.", label="repair")
    classify = ClassifyConfig(kind="train.classify", model="student", context=64, labels=["repair", "thanks"])
    report = report_of(objective_of(classify), renderer, letter)
    assert report["supervised"] == 0  # a score is learned, not tokens
    assert "stops" not in report and not endless(report)  # and nothing is written that should stop
    assert report["shown"]["labelled"] == "The gate is broken.\n\n→ repair"


def test_nothing_supervised_is_an_error(config: Make, renderer: Renderer) -> None:
    with pytest.raises(InputError, match="no sample to train on"):
        report_of(objective_of(config()), renderer)


def test_a_sequence_without_supervised_tokens_changes_nothing(
    model_folder: Path, config: Make, renderer: Renderer
) -> None:
    """We never pad; what padding would be, tokens that nobody is asked about, leaves loss and gradients as they are."""
    import torch

    from gristmill.models.load import load_model
    from gristmill.train.learner import Learner

    settings = config(lora=None, dtype="fp32")
    objective = objective_of(settings)
    (example,) = examples_of(chat(user("When?"), answer("In 1720.")), objective, renderer)
    filler = Example((Tokens(np.zeros(17, np.int64), np.zeros(17, np.bool_)),))
    found = []
    for row in ([example], [example, filler], [filler, example, filler]):
        learner = Learner(load_model(locate(str(model_folder), base=Path("/"))), objective, settings)
        torch.manual_seed(0)
        stepped = learner.step([collate(row)], total=float(example.supervised), rate=1e-2, seed=3)
        found.append((stepped.loss, stepped.grad_norm, {n: p.clone() for n, p in learner.weights().items()}))
    for loss, norm, weights in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-6)
        assert norm == pytest.approx(found[0][1], rel=1e-5)
        assert all(torch.allclose(weights[name], p, atol=1e-6) for name, p in found[0][2].items())
