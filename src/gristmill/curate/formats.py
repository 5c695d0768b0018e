"""A sample as a row of each format that other tools train on. What a format cannot say is a Reject with its reason.

`masked`, `preference`, `rating` and `labelled` are read back by `ingest.samples` as the samples they were, and so are
the others as far as they can say what a sample is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from gristmill.core.errors import Reject
from gristmill.core.records import Message, Sample, TrainMask

Row = dict[str, Any]

_SPECIAL = re.compile(r"<\|[^|>\s]{1,40}\|>|</?s>|<(?:bos|eos|pad|unk)>")
_SHAREGPT = {"system": "system", "user": "human", "assistant": "gpt", "tool": "tool"}


def _only(sample: Sample, form: str) -> Sample:
    if sample.form != form:
        raise Reject(f"a {sample.form} sample is not said in this format")
    return sample


def _chat(sample: Sample) -> tuple[Message, ...]:
    return _only(sample, "chat").messages


def _silent(messages: tuple[Message, ...]) -> None:
    if any(message.train for message in messages):
        raise Reject("trains on the prompt")


def _every_answer(messages: tuple[Message, ...]) -> None:
    """These formats train on every answer, whole, and on nothing else: no other mask can be said in them."""
    if not any(message.train for message in messages):
        raise Reject("nothing to train on")
    for message in messages:
        if not isinstance(message.train, bool):
            raise Reject("trains on a part of a message")
        if message.train and message.role != "assistant":
            raise Reject("trains on other messages than answers")
        if not message.train and message.role == "assistant":
            raise Reject("has an answer that is not trained on")


def _plain(messages: Iterable[Message]) -> list[Row]:
    return [{"role": m.role, "content": m.content} for m in messages]


def openai(sample: Sample) -> Row:
    """OpenAI's fine-tuning rows: messages and nothing else."""
    messages = _chat(sample)
    _every_answer(messages)
    return {"messages": _plain(messages)}


def sharegpt(sample: Sample) -> Row:
    messages = _chat(sample)
    _every_answer(messages)
    return {"id": sample.id, "conversations": [{"from": _SHAREGPT[m.role], "value": m.content} for m in messages]}


def alpaca(sample: Sample) -> Row:
    messages = _chat(sample)
    _every_answer(messages)
    system = messages[0].content if messages[0].role == "system" else ""
    turns = messages[1:] if system else messages
    if [message.role for message in turns] != ["user", "assistant"]:
        raise Reject("more than one turn")
    return {
        "id": sample.id,
        "instruction": turns[0].content,
        "input": "",
        "output": turns[1].content,
        "system": system,
    }


def _free_of_specials(text: str) -> None:
    if hit := _SPECIAL.search(text):
        raise Reject("special token in the text", hit[0])


def _spans(mask: TrainMask, start: int, end: int) -> list[list[int]]:
    """The characters that are trained on, for a text that lies at start..end of a row."""
    if isinstance(mask, bool):
        return [[start, end]] if mask else []
    return [[start + one, start + other] for one, other in mask]


def chatml(sample: Sample) -> Row:
    """ChatML as one text. `train` holds the spans that are trained on: an answer and the token that ends it."""
    text = ""
    spans: list[list[int]] = []
    for message in _chat(sample):
        _free_of_specials(message.content)
        text += f"<|im_start|>{message.role}\n"
        start = len(text)
        text += f"{message.content}<|im_end|>"
        spans += _spans(message.train, start, len(text))
        text += "\n"
    if not spans:
        raise Reject("nothing to train on")
    return {"id": sample.id, "text": text, "train": spans}


def text(sample: Sample) -> Row:
    _only(sample, "text")
    _free_of_specials(sample.text)
    spans = _spans(sample.train, 0, len(sample.text))
    if not spans:
        raise Reject("nothing to train on")
    return {"id": sample.id, "text": sample.text, "train": spans}


def _about(sample: Sample) -> Row:
    return {"kind": sample.kind, "language": sample.language}


def masked(sample: Sample) -> Row:
    """A chat with any mask: of each message `train`, or the `spans` of it that are trained on."""
    said = [
        row | ({"train": m.train, "spans": None} if isinstance(m.train, bool) else {"train": None, "spans": m.train})
        for m, row in zip(_chat(sample), _plain(sample.messages), strict=True)
    ]
    return {"id": sample.id, "messages": said, **_about(sample)}


def preference(sample: Sample) -> Row:
    """TRL's conversational pairs, the prompt apart."""
    _only(sample, "preference")
    _silent(sample.messages)
    _every_answer(sample.chosen)
    _every_answer(sample.rejected)
    parts = {"prompt": sample.messages, "chosen": sample.chosen, "rejected": sample.rejected}
    return {"id": sample.id, **{name: _plain(part) for name, part in parts.items()}, **_about(sample)}


def rating(sample: Sample) -> Row:
    """TRL's unpaired preference: a prompt, what follows its last question, and whether that is good."""
    messages = _only(sample, "rating").messages
    asked = max((at + 1 for at, message in enumerate(messages) if message.role in ("system", "user")), default=0)
    if not asked:
        raise Reject("nothing is asked")
    _silent(messages[:asked])
    _every_answer(messages[asked:])
    parts = {"prompt": _plain(messages[:asked]), "completion": _plain(messages[asked:])}
    return {"id": sample.id, **parts, "label": sample.desirable, **_about(sample)}


def labelled(sample: Sample) -> Row:
    _only(sample, "labelled")
    spans = [list(span) for span in sample.spans] or None
    return {"id": sample.id, "text": sample.text, "label": sample.label, "spans": spans, **_about(sample)}


FORMATS: dict[str, Callable[[Sample], Row]] = {
    "openai": openai,
    "sharegpt": sharegpt,
    "alpaca": alpaca,
    "chatml": chatml,
    "text": text,
    "masked": masked,
    "preference": preference,
    "rating": rating,
    "labelled": labelled,
}
