"""Files of training data to samples, one for each row, in the memory of one row (`rows` reads them).

What a row is follows from its columns; with several to choose from, the first of these:

    preference  chosen, rejected; prompt, unless both begin with the same messages
    rating      prompt, completion, label (true: good)
    openai      messages: role, content
    sharegpt    conversations: from, value
    alpaca      instruction, output; input, system
    completion  prompt, completion
    labelled    text, label; spans of the text that the label is about: [[start, end], …] in characters
    text        text; train: true, false, or spans [[start, end], …] in characters

prompt, completion, chosen and rejected are a text or a list of messages. An assistant's message is trained on and no
other, unless it says otherwise: `train` (true, false, spans), or `weight` (1, 0). Columns `split`, `language` and
`kind` say what they say. A row that is none of these, or not quite, is a reject with its place and reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from gristmill.core.errors import InputError, Reject
from gristmill.core.prompt import names_of
from gristmill.core.records import Draft, Message, Record, Sample, TrainMask
from gristmill.core.stage import Dropped, PassContext, PassResult
from gristmill.ingest import rows
from gristmill.ingest.stages import SamplesConfig

Row = dict[str, Any]

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "tool": "tool",
    "observation": "tool",
}
TRUTHS = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}  # True is 1 and 1.0 too
SPLITS = ("train", "validation", "test")


def run(config: SamplesConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    counts: dict[str, int] = {}
    for item in rows.run(config, records, ctx):
        if isinstance(item, Dropped):
            yield item
            continue
        try:
            sample = sample_of(item, config)
        except Reject as reject:
            place = ", ".join(f"{mark} {value}" for mark, value in item.marks.items())
            yield Dropped(item, reject.reason, f"{place}: {reject.detail}" if reject.detail else place)
        else:
            counts[sample.form] = counts.get(sample.form, 0) + 1
            yield sample
    ctx.count(**counts)


def sample_of(draft: Draft, config: SamplesConfig) -> Sample:
    """The sample that a row is."""
    row = dict(draft.data)
    for ours, theirs in config.names.items():
        if theirs in row:
            row[ours] = row.pop(theirs)
    read = _reader(row, config.format)
    split = row.get("split") or config.split
    if split is not None and split not in SPLITS:
        raise Reject("unknown split", f"{split!r}: it is one of {', '.join(SPLITS)}")
    try:
        return Sample(
            kind=str(row.get("kind") or config.sample_kind),
            language=str(row.get("language") or config.language),
            parents=draft.parents,
            marks=draft.marks | ({"split": split} if split else {}),
            **read(row),
        )
    except ValidationError as error:
        raise Reject("row that is no sample", "; ".join(problem["msg"] for problem in error.errors())) from error


def _reader(row: Row, wanted: str) -> Callable[[Row], dict[str, Any]]:
    if wanted != "auto":
        needed, read = READERS[wanted]
        if missing := [name for name in needed if row.get(name) is None]:
            raise Reject(f"no {' and no '.join(missing)}", f"the columns are {', '.join(row)}")
        return read
    for form, (needed, read) in READERS.items():
        if all(row.get(name) is not None for name in needed):
            if form in ("completion", "text") and "label" in row:  # empty: taken for a chat, it would be trained on
                raise Reject("no label", "set the stage's `format` to leave the column `label` unread")
            return read
    raise Reject("row of no known form", f"its columns are {', '.join(row)}; `names` says what they are called here")


def _preference(row: Row) -> dict[str, Any]:
    """Two ways to go on after `prompt`; or two whole conversations, whose prompt is what both begin with."""
    chosen, rejected = _said(row["chosen"]), _said(row["rejected"])
    if chosen == rejected:
        raise Reject("chosen and rejected are the same")
    given = row.get("prompt")
    if given is not None and chosen[0].role == rejected[0].role == "assistant":
        prompt = _asked(given)
    else:
        pairs = enumerate(zip(chosen, rejected, strict=False))
        same = next((at for at, (one, other) in pairs if one != other), min(len(chosen), len(rejected)))
        prompt, chosen, rejected = _silent(chosen[:same]), chosen[same:], rejected[same:]
        if not prompt:
            raise Reject("no prompt", "give a column `prompt`, or conversations that begin with the same messages")
        if given is not None and not set(_asked(given)) <= set(prompt):
            raise Reject("prompt that the conversations do not hold")
    if not all(any(message.train for message in part) for part in (chosen, rejected)):
        raise Reject("a side without an answer to train on")
    return {"form": "preference", "messages": (*_system(row), *prompt), "chosen": chosen, "rejected": rejected}


def _rating(row: Row) -> dict[str, Any]:
    label = row["label"].lower() if isinstance(row["label"], str) else row["label"]
    if not isinstance(label, bool | int | float | str) or label not in TRUTHS:
        raise Reject("label that is neither true nor false", str(row["label"])[:100])
    return {"form": "rating", "messages": _answered(row), "desirable": TRUTHS[label]}


def _openai(row: Row) -> dict[str, Any]:
    return {"form": "chat", "messages": (*_system(row), *_messages(row["messages"]))}


def _sharegpt(row: Row) -> dict[str, Any]:
    return {"form": "chat", "messages": (*_system(row), *_messages(row["conversations"]))}


def _alpaca(row: Row) -> dict[str, Any]:
    if row.get("history"):
        raise Reject("alpaca row with a history", "write it as messages")
    asked = "\n\n".join(part for part in (_text(row["instruction"]), _text(row.get("input") or "")) if part)
    answer = Message(role="assistant", content=_text(row["output"]), train=True)
    return {"form": "chat", "messages": (*_system(row), Message(role="user", content=asked), answer)}


def _completion(row: Row) -> dict[str, Any]:
    return {"form": "chat", "messages": _answered(row)}


def _labelled(row: Row) -> dict[str, Any]:
    label = row["label"]
    if not isinstance(label, str | int):
        raise Reject("label that is neither a word nor a number", str(label)[:100])
    name = str(label).lower() if isinstance(label, bool) else str(label)
    text = _text(row["text"])
    spans = _mask(row.get("spans"), text, default=False)
    if spans is True:
        raise Reject("spans that cannot be read", str(row["spans"])[:100])
    return {"form": "labelled", "text": text, "label": name, "spans": spans or ()}


def _plain(row: Row) -> dict[str, Any]:
    """Spans over a whole text are the whole text, its end included: the export writes it so."""
    text = _text(row["text"])
    train = _mask(row.get("train"), text, default=True)
    return {"form": "text", "text": text, "train": train == ((0, len(text)),) or train}


READERS: dict[str, tuple[tuple[str, ...], Callable[[Row], dict[str, Any]]]] = {
    "preference": (("chosen", "rejected"), _preference),
    "rating": (("prompt", "completion", "label"), _rating),
    "openai": (("messages",), _openai),
    "sharegpt": (("conversations",), _sharegpt),
    "alpaca": (("instruction", "output"), _alpaca),
    "completion": (("prompt", "completion"), _completion),
    "labelled": (("text", "label"), _labelled),
    "text": (("text",), _plain),
}
"""The columns that a row of each format must have, and who reads it. `auto` takes the first that fits."""


def _system(row: Row) -> tuple[Message, ...]:
    return (Message(role="system", content=_text(row["system"])),) if row.get("system") else ()


def _answered(row: Row) -> tuple[Message, ...]:
    return (*_system(row), *_asked(row["prompt"]), *_said(row["completion"]))


def _asked(given: Any) -> tuple[Message, ...]:
    return (Message(role="user", content=given),) if _bare(given) else _silent(_messages(given))


def _said(given: Any) -> tuple[Message, ...]:
    return (Message(role="assistant", content=given, train=True),) if _bare(given) else _messages(given)


def _silent(messages: Iterable[Message]) -> tuple[Message, ...]:
    """The same messages, none of them trained on."""
    return tuple(message.model_copy(update={"train": False}) for message in messages)


def _bare(given: Any) -> bool:
    """A text, and not messages that a cell of csv holds as JSON."""
    return isinstance(given, str) and not given.lstrip().startswith('[{"')


def _messages(given: Any) -> tuple[Message, ...]:
    if isinstance(given, str):
        try:
            given = orjson.loads(given)
        except orjson.JSONDecodeError as error:
            raise Reject("messages that are no list", str(error)) from error
    if not isinstance(given, list) or not given or not all(isinstance(item, dict) for item in given):
        raise Reject("messages that are no list", str(given)[:100])
    return tuple(map(_message, given))


def _message(item: Row) -> Message:
    name, content = item.get("role", item.get("from")), item.get("content", item.get("value"))
    role = ROLES.get(str(name))
    if role is None:
        raise Reject("unknown role", str(name)[:100])
    if item.get("tool_calls") or item.get("function_call"):
        raise Reject("message that calls tools", "only what is said can be trained on")
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "".join(_text(part.get("text")) for part in content)
    text = _text(content)
    given = [item[name] for name in ("train", "spans", "weight") if item.get(name) is not None]
    if len(given) > 1:
        raise Reject("message with two masks", "give one of train, spans and weight")
    return Message(role=role, content=text, train=_mask(given[0] if given else None, text, default=role == "assistant"))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Reject("content that is no text", str(value)[:100])
    return value


def _mask(value: Any, text: str, *, default: bool) -> TrainMask:
    """True, false, 1, 0, or spans inside the text."""
    if value is None:
        return default
    if isinstance(value, str):  # a cell of csv
        try:
            value = orjson.loads(value.lower())
        except orjson.JSONDecodeError as error:
            raise Reject("mask that cannot be read", value[:100]) from error
    if isinstance(value, bool) or value in (0, 1):
        return bool(value)
    if not isinstance(value, list):
        raise Reject("mask that cannot be read", str(value)[:100])
    return tuple(_span(span, text) for span in value) or False


def _span(span: Any, text: str) -> tuple[int, int]:
    pair = isinstance(span, list) and len(span) == 2 and all(type(end) is int for end in span)
    if not pair or not 0 <= span[0] < span[1] <= len(text):
        raise Reject("span outside its text", f"{span} of {len(text)} characters")
    return span[0], span[1]


def fields(config: SamplesConfig, base: Path, _before: frozenset[str] | None) -> frozenset[str] | None:
    """What a prompt may name of a sample. `check` is told here when no row can become one."""
    found = rows.fields(config, base, None)
    if found is None:
        return names_of(Sample)
    known = found | {ours for ours, theirs in config.names.items() if theirs in found}
    wanted = [needed for name, (needed, _) in READERS.items() if config.format in ("auto", name)]
    if not any(known.issuperset(needed) for needed in wanted):
        ways = "; ".join(" and ".join(needed) for needed in wanted)
        raise InputError(
            f"no row can become a sample: the columns are {', '.join(sorted(found))}",
            f"Needed are {ways}. Where they are called otherwise: names: {{text: content}}.",
        )
    return names_of(Sample)
