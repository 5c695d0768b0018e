"""A sample as a row of each format that other tools train on. What a format cannot say is a Reject with its reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from gristmill.core.errors import Reject
from gristmill.core.records import Message, Sample, TrainMask

Row = dict[str, Any]

_SPECIAL = re.compile(r"<\|[^|>\s]{1,40}\|>|</?s>|<(?:bos|eos|pad|unk)>")
_SHAREGPT = {"system": "system", "user": "human", "assistant": "gpt", "tool": "tool"}


def _chat(sample: Sample) -> tuple[Message, ...]:
    if sample.form != "chat":
        raise Reject("plain text in a chat format")
    return sample.messages


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


def openai(sample: Sample) -> Row:
    """OpenAI's fine-tuning rows: messages and nothing else."""
    messages = _chat(sample)
    _every_answer(messages)
    return {"messages": [{"role": m.role, "content": m.content} for m in messages]}


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
    if sample.form != "text":
        raise Reject("chat in a text format")
    _free_of_specials(sample.text)
    spans = _spans(sample.train, 0, len(sample.text))
    if not spans:
        raise Reject("nothing to train on")
    return {"id": sample.id, "text": sample.text, "train": spans}


FORMATS: dict[str, Callable[[Sample], Row]] = {
    "openai": openai,
    "sharegpt": sharegpt,
    "alpaca": alpaca,
    "chatml": chatml,
    "text": text,
}
