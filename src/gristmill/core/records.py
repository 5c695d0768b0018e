"""The records that flow from room to room. Frozen; named by what they hold.

`id`      = type + content + parents. The same content from the same parents is the same record.
`digest`  covers everything, marks and origin included; step results are kept under it.
Outside the id stand `marks` (scores, split, tags) and `origin` (which stage, prompt and answers made it).
No wall time, cost or latency inside a record: those are events.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

Span = tuple[int, int]
"""Start and end (exclusive), in characters."""

TrainMask = bool | tuple[Span, ...]
"""What the loss sees of a text: all of it, nothing, or these character spans."""


def canonical(value: Any) -> bytes:
    """The canonical JSON of any plain value: what ids and keys are hashes of."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def digest_of(value: Any) -> str:
    """sha256, in hex, of the canonical JSON of any plain value."""
    return hashlib.sha256(canonical(value)).hexdigest()


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Origin(Frozen):
    """How a record came to be: enough to find the prompt version, the model and the exact answers it was made from."""

    stage: str
    prompt: str | None = None  # name@hash
    model: str | None = None  # identity: base URL and model, or the weights' sha256
    calls: tuple[str, ...] = ()  # store keys of the answers it was made from


class Record(Frozen):
    type: ClassVar[str]
    parents: tuple[str, ...] = ()
    marks: dict[str, JsonValue] = Field(default_factory=dict)
    origin: Origin | None = None

    @cached_property
    def id(self) -> str:
        return _id(self.type, canonical(self.content()), self.parents)

    @property
    def digest(self) -> str:
        return _digest(self.id, canonical(self.marks), canonical(_plain(self.origin)))

    def content(self) -> dict[str, Any]:
        """Everything that is in the id besides type and parents."""
        return self.model_dump(mode="json", exclude={"parents", "marks", "origin"})

    def marked(self, **marks: JsonValue) -> Self:
        """The same record with more marks: same id, other digest."""
        return self.model_copy(update={"marks": {**self.marks, **marks}})

    def model_copy(self, *, update: Any = None, deep: bool = False) -> Self:
        copy = super().model_copy(update=update, deep=deep)
        if update and update.keys() - {"marks", "origin"}:
            copy.__dict__.pop("id", None)  # pydantic copies cached properties too
        return copy

    def to_row(self) -> dict[str, Any]:
        """Plain columns for storage; `from_row` reads them back to an equal record. Each part is written as JSON once:
        the id and the digest are hashes of these very bytes."""
        body, marks, origin = canonical(self.content()), canonical(self.marks), canonical(_plain(self.origin))
        made = self.__dict__.get("id") or _id(self.type, body, self.parents)
        return {
            "id": made,
            "type": self.type,
            "parents": self.parents,
            "marks": marks.decode(),
            "origin": origin.decode() if self.origin else None,
            "digest": _digest(made, marks, origin),
            "body": body.decode(),
        }


def _id(kind: str, body: bytes, parents: Sequence[str]) -> str:
    """`digest_of([type, content, parents])`, shortened, from JSON that is written already."""
    return hashlib.sha256(b'["%b",%b,%b]' % (kind.encode(), body, orjson.dumps(parents))).hexdigest()[:16]


def _digest(made: str, marks: bytes, origin: bytes) -> str:
    """`digest_of([id, marks, origin])`, from JSON that is written already."""
    return hashlib.sha256(b'["%b",%b,%b]' % (made.encode(), marks, origin)).hexdigest()


def _plain(origin: Origin | None) -> dict[str, Any] | None:
    return None if origin is None else {**origin.__dict__}


class File(Record):
    """A file as found: its path below the given folder, and what is in it. Where it lies now is the mark `location`."""

    type: ClassVar[str] = "file"
    path: str
    sha256: str
    size: int


class Page(Frozen):
    """Where a page's text lies in the document's text."""

    number: int
    start: int
    end: int


class Block(Frozen):
    """A structural piece of a document's text: where it lies and what it is."""

    kind: Literal["heading", "paragraph", "list", "table", "code"]
    start: int
    end: int
    level: int = 0  # of a heading, from 1


class Document(Record):
    type: ClassVar[str] = "document"
    path: str
    title: str
    text: str
    language: str  # ISO 639-1
    media_type: str
    pages: tuple[Page, ...] = ()
    blocks: tuple[Block, ...] = ()


class Chunk(Record):
    """A piece of a document: `text == document.text[start:end]`, always."""

    type: ClassVar[str] = "chunk"
    path: str
    title: str
    text: str
    start: int
    end: int
    pages: tuple[int, ...] = ()  # every page it touches
    headings: tuple[str, ...] = ()  # the headings above it, outermost first
    sentences: tuple[Span, ...] = ()  # in characters of this chunk's text
    tokens: int
    language: str


class Quote(Frozen):
    """Words copied from a document by code, with their exact place: `document.text[start:end] == text`."""

    text: str
    start: int
    end: int
    path: str
    pages: tuple[int, ...] = ()


class Fact(Record):
    type: ClassVar[str] = "fact"
    statement: str
    quote: Quote
    language: str


class Draft(Record):
    """Anything in between (a scene card, a plan): a kind, and JSON."""

    type: ClassVar[str] = "draft"
    kind: str
    data: dict[str, JsonValue]


class Message(Frozen):
    role: Literal["system", "user", "assistant", "tool"]
    content: str
    train: TrainMask = False


_CONTENTS = ("text", "messages", "chosen", "rejected", "desirable", "label")
_FORMS = {
    "text": {"text"},
    "chat": {"messages"},
    "preference": {"messages", "chosen", "rejected"},
    "rating": {"messages", "desirable"},
    "labelled": {"text", "label"},
}


class Sample(Record):
    """One training record. For every character it says whether the loss sees it.

    text        `text`
    chat        `messages`
    preference  `messages` (the prompt) and two ways to go on: `chosen` is better than `rejected`
    rating      `messages` (the answer included) and whether it is `desirable`
    labelled    `text` and its `label`; `spans` of the text that the label is about, if not about all of it
    """

    type: ClassVar[str] = "sample"
    form: Literal["text", "chat", "preference", "rating", "labelled"]
    kind: str  # what it is for: qa, cloze, rephrase, passage, ...
    text: str = ""
    train: TrainMask = True  # of `text`
    messages: tuple[Message, ...] = ()
    chosen: tuple[Message, ...] = ()
    rejected: tuple[Message, ...] = ()
    desirable: bool | None = None
    label: str = ""
    spans: tuple[Span, ...] = ()  # of `text`: what `label` is about
    quotes: tuple[Quote, ...] = ()  # what it rests on
    language: str = "en"

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        held = {name for name in _CONTENTS if getattr(self, name) not in ("", (), None)}
        if held != _FORMS[self.form]:
            raise ValueError(f"a {self.form} sample has {' and '.join(sorted(_FORMS[self.form]))}, and nothing else")
        return self

    @property
    def question(self) -> str:
        """The last user message of a chat; empty for text."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def answer(self) -> str:
        """The last assistant message (of a preference, the chosen one's); the text itself otherwise."""
        said = (*self.messages, *self.chosen)
        return next((m.content for m in reversed(said) if m.role == "assistant"), self.text)


class Task(Record):
    """Something to solve and how it is judged. A line of an exam file is one Task: question and answers suffice."""

    type: ClassVar[str] = "task"
    question: str
    answers: tuple[str, ...] = Field(min_length=1)  # any of these is right
    kind: str = "short"
    document: str = ""  # path of the document that holds the answer
    context: str = ""  # what an open-book candidate may read
    grader: str = "short_answer"


class Episode(Record):
    """One attempt at a task by one model."""

    type: ClassVar[str] = "episode"
    arm: str  # which candidate: a role, and how it sat the exam
    answer: str
    finish: str  # stop, length
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()


class Score(Record):
    type: ClassVar[str] = "score"
    value: float
    reason: str
    grader: str


class Checkpoint(Record):
    """Weights with a verified manifest. Where the folder lies is the mark `folder`, relative to the workspace."""

    type: ClassVar[str] = "checkpoint"
    base: str  # sha256 of the base weights
    manifest: str  # sha256 of the checkpoint's manifest
    step: int
    metrics: dict[str, float] = Field(default_factory=dict)


class Report(Record):
    type: ClassVar[str] = "report"
    title: str
    data: dict[str, JsonValue]


RECORD_TYPES: dict[str, type[Record]] = {
    cls.type: cls for cls in (File, Document, Chunk, Fact, Draft, Sample, Task, Episode, Score, Checkpoint, Report)
}


def from_row(row: dict[str, Any]) -> Record:
    """A record from the columns that `Record.to_row` wrote. The id is a hash of them and must agree."""
    body, parents = row["body"], tuple(row["parents"])
    if _id(row["type"], body.encode(), parents) != row["id"]:
        raise ValueError(f"record {row['id']} does not hold what its id says")
    outside = f'"parents":{orjson.dumps(parents).decode()},"marks":{row["marks"]},"origin":{row["origin"] or "null"}'
    record = RECORD_TYPES[row["type"]].model_validate_json(f"{{{outside},{body[1:]}")
    record.__dict__["id"] = row["id"]
    return record
