"""What one question rests on: the passages of a draft, their sentences numbered through, and where it begins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from gristmill.core.errors import Reject
from gristmill.core.records import Chunk, Draft, Message, Sample
from gristmill.core.stage import StepContext
from gristmill.core.thoughts import MARK, Thought, check_thought
from gristmill.generate.recall.stages import RecallConfig, Way
from gristmill.generate.source import Sentence, Source, chat, language_of, source_of
from gristmill.generate.wording import opens_with_pronoun


def whole_source(chunk: Chunk, ctx: StepContext) -> Source:
    """All sentences of a chunk, also where a mark asks for some of them alone: any may be recalled."""
    return source_of(chunk.model_copy(update={"marks": {}}), ctx)


@dataclass(frozen=True)
class Turn:
    """One question, its answer, and the sentences that the answer rests on."""

    question: str
    answer: str
    rests_on: tuple[Sentence, ...]
    opening: str = ""  # of the thought


@dataclass(frozen=True)
class Group:
    draft: Draft
    sources: tuple[Source, ...]

    @classmethod
    def of(cls, draft: Draft, ctx: StepContext) -> Group:
        """The passages by the draft's parents: the anchor first."""
        chunks = {chunk.id: chunk for chunk in ctx.ancestors(draft, Chunk)}
        held = [chunks[parent] for parent in draft.parents if parent in chunks]
        if not held:
            raise Reject("no chunk", f"draft {draft.id} has no chunk above it")
        return cls(draft, tuple(whole_source(chunk, ctx) for chunk in held))

    @property
    def way(self) -> Way:
        way: Way = self.draft.data["way"]  # type: ignore[assignment]
        return way

    @property
    def anchor(self) -> Source:
        return self.sources[0]

    @property
    def begin(self) -> Sentence:
        """The sentence that the question begins from."""
        return self.at(0, int(self.draft.data["begin"]))  # type: ignore[arg-type]

    @property
    def also(self) -> Sentence | None:
        """The sentence of another passage that goes with it."""
        match self.draft.data["with"]:
            case [int(source), int(start)]:
                return self.at(source, start)
        return None

    def at(self, source: int, start: int) -> Sentence:
        """A sentence by its passage and its start in the document."""
        return next(each for each in self.sources[source].sentences if each.quote.start == start)

    def place_of(self, sentence: Sentence) -> tuple[int, int]:
        """What `at` finds it by."""
        return next((n, sentence.quote.start) for n, source in enumerate(self.sources) if sentence in source.sentences)

    @property
    def sentences(self) -> list[Sentence]:
        """Of all passages, in the order in which `shown` numbers them."""
        return [sentence for source in self.sources for sentence in source.sentences]

    def shown(self) -> str:
        """The passages as a prompt shows them: each with its place, the sentences numbered through from 1."""
        lines, number = [], 0
        for source in self.sources:
            lines.append(f"[{source.place}]")
            for sentence in source.sentences:
                number += 1
                lines.append(f"{number}. {sentence.text}")
        return "\n".join(lines)

    def source_of(self, sentence: Sentence) -> Source:
        return self.sources[self.place_of(sentence)[0]]

    def placed(self, sentences: Iterable[Sentence]) -> str:
        """Some sentences as facts, each with its place."""
        return "\n".join(f"- ({self.source_of(each).topic}) {in_full(each)}" for each in sentences)


def in_full(sentence: Sentence) -> str:
    """The sentence, after the one before where a pronoun needs it."""
    return f"{sentence.before} {sentence.text}" if opens_with_pronoun(sentence.text) else sentence.text


def sample_of(group: Group, turns: Sequence[Turn], config: RecallConfig, **more: Any) -> Sample:
    """The questions and their answers, which the loss sees. `more` is what only the caller knows."""
    messages: list[Message] = []
    for turn in turns:
        messages += chat(turn.question, _reply(turn, group, config))
    return Sample(
        form="chat",
        kind="recall",
        messages=tuple(messages),
        quotes=tuple(dict.fromkeys(sentence.quote for turn in turns for sentence in turn.rests_on)),
        language=language_of(config.language, group.anchor.chunk.language).code,
        **more,
    )


def marks_of(group: Group, config: RecallConfig) -> dict[str, JsonValue]:
    return {"way": group.way, **({MARK: True} if config.thoughts else {})}


def _reply(turn: Turn, group: Group, config: RecallConfig) -> str:
    """The answer as it is learned: after the passages it recalls, where the recipe wants thoughts; before the documents
    it rests on, where it wants them cited. Both are copied by code."""
    paths = dict.fromkeys(sentence.quote.path for sentence in turn.rests_on)
    answer = f"{turn.answer} ({', '.join(paths)})" if config.cite else turn.answer
    if not config.thoughts:
        return answer
    recalled = [f'{group.source_of(each).place} ({each.quote.path}): "{each.text}"' for each in turn.rests_on]
    try:
        return Thought(check_thought("\n".join([turn.opening, *recalled])), answer).joined()
    except ValueError as error:
        raise Reject("a thought that cannot be told from its answer", str(error)) from error
