"""THE renderer: messages or text → token ids and loss mask, for preview, training, export, exam and serving alike.

- Special tokens are recognised in the template's structure only; text inside a message never becomes one.
- The mask comes from the places where contents stand (`template`), never from searching for them.
- Ordinary text between special tokens is encoded in one piece, as transformers does, with one exception: an assistant's
  content begins a new piece. A served model starts there, so training must too, whatever the content begins with.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

from gristmill.core.errors import ConfigError, InputError
from gristmill.core.records import Message, Span, TrainMask
from gristmill.models.template import ChatTemplate
from gristmill.models.tokenizer import ControlToken, Vocabulary, load_vocabulary, save_vocabulary
from gristmill.models.weights import Weights


@dataclass(frozen=True)
class Rendered:
    """Token ids, for each whether the loss sees it, and the text they spell (special tokens included)."""

    ids: list[int]
    mask: list[bool]
    text: str

    @property
    def supervised(self) -> int:
        return sum(self.mask)


class Misplaced(InputError):
    """A span to train on that lies outside its text. The next sample may be fine."""


@dataclass(frozen=True)
class _Piece:
    """A stretch of text that becomes tokens on its own: one special token, or ordinary text."""

    text: str
    special: int | None = None
    train: tuple[Span, ...] = ()  # supervised characters of this piece
    fresh: bool = False  # never joined to the ordinary text before it


class Renderer:
    """Bound to one tokenizer and template. `context` is the model's length in tokens; `eos` ends plain text."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._tokenizer = vocabulary.tokenizer
        self._template = ChatTemplate(vocabulary.template, vocabulary.names) if vocabulary.template else None
        self._special = _special_pattern(vocabulary.control)
        self._proven = False
        self.context = vocabulary.context
        self.eos = vocabulary.eos
        self.bos = vocabulary.bos

    @property
    def chats(self) -> bool:
        """Whether the model has a chat template."""
        return self._template is not None

    @classmethod
    def load(cls, weights: Weights) -> Renderer:
        """The renderer of some weights. The last few are kept."""
        return _load(weights)

    def extended(self, tokens: Sequence[str], *, template: str | None = None) -> Renderer:
        """The renderer with more tokens and perhaps another chat template; see `Vocabulary.extended`."""
        renderer = Renderer(self.vocabulary.extended(tokens, template=template))
        return renderer if template is None else Renderer(replace(renderer.vocabulary, ends=renderer.stop_ids))

    def chat(self, messages: Sequence[Message], *, generate: bool = False) -> Rendered:
        """A conversation. With `generate`, what a server is sent: it ends where the answer begins, and no loss is seen.

        `train` of a message: true supervises its content and the end-of-turn token after it; spans supervise the tokens
        that lie wholly inside them; false supervises nothing.
        """
        template = self._proven_template()
        layout = template.layout(messages, generate=generate)
        pieces: list[_Piece] = []
        stop = False
        for structure, slot, message in zip(layout.structure, layout.slots, messages, strict=False):
            train = False if generate else message.train
            content, cut = slot.place(message.content)
            pieces += self._structure(structure, stop=stop)
            seen = _inside(train, message.content, cut, content)
            pieces.append(_Piece(content, None, seen, fresh=message.role == "assistant"))
            stop = train is True
        pieces += self._structure(layout.structure[-1], stop=stop)
        return self._encode(pieces)

    def opening(self, before: Sequence[Message] = ()) -> list[int]:
        """What opens a user's turn after some messages: a model that goes on from here writes what a user says."""
        whole = self.chat([*before, Message(role="user", content="Hi", train=True)])
        return whole.ids[: whole.mask.index(True)]

    def text(self, text: str, *, train: TrainMask = True) -> Rendered:
        """Plain text as in pre-training: the model's first token if it uses one, the text, and the end token."""
        names = {at: content for content, at in self._special.ids.items()}
        begin = [_Piece(names.get(self.bos, ""), self.bos)] if self.bos is not None else []
        whole = ((0, 1),) if train is True else ()
        end = _Piece(names.get(self.eos, ""), self.eos, whole)
        return self._encode([*begin, _Piece(text, None, _inside(train, text, 0, text)), end])

    def encode(self, text: str) -> list[int]:
        """Ordinary text as tokens, nothing added; what looks like a special token stays text."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """The text of some tokens; special tokens are left out unless asked for."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=not special))

    @cached_property
    def turn_end(self) -> int | None:
        """The token with which the template ends an assistant's turn; None without a template."""
        if not self.vocabulary.template:
            return None
        taught = self.chat([Message(role="user", content="Hi"), Message(role="assistant", content="Yes", train=True)])
        return max(zip(taught.mask, range(len(taught.ids)), taught.ids, strict=True))[2]

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """The tokens that end a generation: those the model's files name, and the template's end of turn."""
        return self.vocabulary.ends if self.turn_end is None else self.vocabulary.ends | {self.turn_end}

    @cached_property
    def pad(self) -> int:
        """The token that other libraries fill batches up with: the tokenizer's own, or the one that ends a text."""
        named = self.vocabulary.tokenizer.token_to_id(self.vocabulary.names.get("pad_token", ""))
        return self.eos if named is None else int(named)

    @cached_property
    def template_hash(self) -> str:
        """Names template and tokenizer: equal hashes render equally."""
        whole = f"{self.vocabulary.template}\0{self.bos} {self.eos}\0{self._tokenizer.to_str()}"
        return hashlib.sha256(whole.encode("utf-8", "surrogateescape")).hexdigest()

    def save_tokenizer(self, folder: Path) -> None:
        """Write tokenizer and template into a model folder, so that this class and transformers load them alike."""
        save_vocabulary(self.vocabulary, folder)

    def _proven_template(self) -> ChatTemplate:
        """The template, once it has shown that this class renders it as the model was trained and is served."""
        if self._template is None:
            raise ConfigError("this model has no chat template", "Use an instruct model for chats, or text samples.")
        if not self._proven:
            self._proven = True  # the proof renders too
            try:
                self._prove()
            except ConfigError:
                self._proven = False
                raise
        return self._template

    def _prove(self) -> None:
        question, answer = Message(role="user", content="Hi, you"), Message(role="assistant", content="Yes it is")
        whole, prompt = self.chat([question, answer]), self.chat([question], generate=True)
        if whole.ids[: len(prompt.ids)] != prompt.ids:
            raise ConfigError("the chat template's prompt does not begin its conversation", "Use another model.")
        self._require_opening(question, prompt)
        self._tokenizer.encode_special_tokens = False
        plain = self._tokenizer.encode(prompt.text, add_special_tokens=False).ids
        self._tokenizer.encode_special_tokens = True
        if plain != prompt.ids or self.encode("\nYes") != self.encode("\n") + self.encode("Yes"):
            raise ConfigError(
                "this model's tokenizer depends on what stands before a piece of text, which is not supported",
                "Use a model with a byte-level BPE tokenizer (SmolLM, Qwen, Llama 3, ...).",
            )

    def _require_opening(self, question: Message, prompt: Rendered) -> None:
        """The prompt must open the answer's turn. What the model writes before an answer is never trained, and one that
        was served an unopened turn would have to. A block of thought after the opening may be the model's own."""
        answer = Message(role="assistant", content="Yes it is", train=((0, len("Yes it is")),))
        whole, asked = self.chat([question, answer]), self.chat([question]).ids
        begins = next((at for at, (a, b) in enumerate(zip(asked, whole.ids, strict=False)) if a != b), len(asked))
        control = set(self._special.ids.values())
        opening = next((at for at in range(begins, whole.mask.index(True)) if whole.ids[at] in control), 0)
        if opening >= len(prompt.ids):
            token = self.decode([whole.ids[opening]], special=True)
            raise ConfigError(
                f"the chat template's prompt ends before {token}, with which the assistant's turn begins",
                "Let the template write the head of the assistant's turn where add_generation_prompt is true.",
            )

    def _structure(self, text: str, *, stop: bool) -> Iterator[_Piece]:
        """The special tokens and the ordinary text of a structural text. With `stop`, its first token is supervised."""
        first = True
        for part, special in self._special.split(text):
            if stop and first and special is None:
                raise ConfigError(
                    "the chat template ends this turn without a special token, so a model could not learn to stop",
                    "Train on other messages, or use a model whose template ends each turn with a token.",
                )
            yield _Piece(part, special, ((0, len(part)),) if stop and first else ())
            first = False

    def _encode(self, pieces: Sequence[_Piece]) -> Rendered:
        ids: list[int] = []
        mask: list[bool] = []
        run: list[_Piece] = []

        def flush() -> None:
            text = "".join(p.text for p in run)
            seen = b"".join(_flags(p) for p in run)
            run.clear()
            if text:
                encoded = self._tokenizer.encode(text, add_special_tokens=False)
                ids.extend(encoded.ids)
                mask.extend(a < b and seen.find(0, a, b) < 0 for a, b in encoded.offsets)

        for piece in pieces:
            if piece.fresh or piece.special is not None:
                flush()
            if piece.special is None:
                run.append(piece)
            else:
                ids.append(piece.special)
                mask.append(bool(piece.train))
        flush()
        return Rendered(ids, mask, "".join(p.text for p in pieces))


@lru_cache(maxsize=4)
def _load(weights: Weights) -> Renderer:
    return Renderer(load_vocabulary(weights))


@dataclass(frozen=True)
class _Special:
    """Finds special tokens in structural text, the longest first."""

    pattern: re.Pattern[str] | None
    ids: dict[str, int]

    def split(self, text: str) -> Iterator[tuple[str, int | None]]:
        at = 0
        for hit in self.pattern.finditer(text) if self.pattern else ():
            if hit.start() > at:
                yield text[at : hit.start()], None
            yield hit[0], self.ids[hit[0].strip()] if hit[0] not in self.ids else self.ids[hit[0]]
            at = hit.end()
        if at < len(text):
            yield text[at:], None


def _special_pattern(control: dict[str, ControlToken]) -> _Special:
    def one(token: ControlToken) -> str:
        return (r"\s*" if token.eats_left else "") + re.escape(token.text) + (r"\s*" if token.eats_right else "")

    longest_first = sorted(control.values(), key=lambda token: (-len(token.text), token.text))
    pattern = re.compile("|".join(map(one, longest_first))) if control else None
    return _Special(pattern, {token.text: token.id for token in control.values()})


def _inside(train: TrainMask, content: str, cut: int, placed: str) -> tuple[Span, ...]:
    """The supervised characters of a content as it stands in the conversation, `cut` characters gone from its left."""
    spans: tuple[Span, ...] = ((0, len(content)),) if train is True else train or ()
    if any(not 0 <= a <= b <= len(content) for a, b in spans):
        raise Misplaced("a train span lies outside its text", "Spans are [start, end) in characters of the content.")
    return tuple((max(a - cut, 0), min(b - cut, len(placed))) for a, b in spans)


def _flags(piece: _Piece) -> bytes:
    """One byte for each character: 1 where the loss sees it."""
    flags = bytearray(len(piece.text))
    for a, b in piece.train:
        if b > a:
            flags[a:b] = b"\1" * (b - a)
    return bytes(flags)
