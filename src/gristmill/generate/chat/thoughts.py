"""Thoughts for answers that are there already: what leads to an answer, written before it, in the one form that domain
data has too (`core.thoughts`).

The answer stays as it is, to the character; a thought that copies it out, goes round in circles or writes the next turn
is refused. Were only domain data thought about, a model would take its topics for the sign to think.
"""

from __future__ import annotations

import re
from itertools import combinations
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, create_model

from gristmill.core.ask import Model, Parsed
from gristmill.core.errors import Reject
from gristmill.core.records import Message, Origin, Sample, TrainMask
from gristmill.core.stage import StepContext
from gristmill.core.thoughts import MARK, Thought, check_thought, parted
from gristmill.generate.chat.asked import joined
from gristmill.generate.chat.stages import ThoughtsConfig
from gristmill.generate.source import language_of
from gristmill.generate.wording import one_line
from gristmill.generate.writer import LINE_TOKENS

_STEP_TOKENS, _STEP = 90, 300  # at most, of one step: tokens, characters
_SAME = 0.7  # Jaccard similarity of the words of two steps
_COPIED, _LONGER = 0.5, 10  # share of an answer's runs of three words; of so many and more: a number may be thought of
_NEXT_TURN = re.compile(r"^\s*(?:user|assistant|system|human)\s*:", re.IGNORECASE | re.MULTILINE)


def schema(most: int, answer: str) -> type[BaseModel]:
    """A thought in steps: bounded, so that none runs on; each leads further, and all of them to the answer."""

    def lead(steps: list[str]) -> list[str]:
        said = [_runs(each, 1) for each in steps]
        if any(_shared(one, other) >= _SAME for one, other in combinations(said, 2)):
            raise ValueError("two steps say the same: each must lead further")
        check_leads("\n".join(steps), answer)
        return steps

    step = Annotated[str, Field(min_length=8, max_length=_STEP)]
    steps = Annotated[list[step], Field(min_length=2, max_length=most), AfterValidator(lead)]
    return create_model("Thinking", steps=(steps, ...))


def check_leads(thought: str, answer: str) -> str:
    """A thought that leads to its answer without being it."""
    if _NEXT_TURN.search(thought):
        raise ValueError("write the thought alone, not the talk")
    theirs = _runs(answer, 3)
    copied = len(theirs) >= _LONGER and len(theirs & _runs(thought, 3)) > _COPIED * len(theirs)
    if copied or thought == answer:
        raise ValueError("do not write the answer out: say how one comes to it")
    return check_thought(thought)


def _runs(text: str, length: int) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return {tuple(words[at : at + length]) for at in range(len(words) - length + 1)}


def _shared(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> float:
    return len(one & other) / max(1, len(one | other))


async def run(config: ThoughtsConfig, record: Sample, ctx: StepContext) -> list[Sample]:
    if record.form != "chat" or not any(_learned(message) for message in record.messages):
        raise Reject("no answer to think about")
    model, language = ctx.model(config.model), language_of(config.language, record.language).name
    messages, origins, talk = [], [], ""
    for message in record.messages:
        content = parted(message.content, record).answer if message.role == "assistant" else message.content
        if _learned(message):
            prompt = ctx.prompt("chat_thoughts" if config.ask == "structured" else "chat_thoughts_line")
            values = {"talk": talk[-config.history :] or "-", "answer": content, "language": language}
            asked = prompt.render(**values, **({"steps": config.steps} if config.ask == "structured" else {}))
            parsed = await _think(config, model, asked, content)
            origins.append(Origin(stage=ctx.stage, prompt=prompt.ref, model=parsed.answer.model, calls=parsed.calls))
            messages.append(_thoughtful(message, Thought(parsed.value, content)))
        else:
            messages.append(message.model_copy(update={"content": content}))
        talk += f"{message.role.capitalize()}: {content}\n"
    update = {"messages": tuple(messages), "parents": (record.id,), "origin": joined(*origins)}
    return [record.model_copy(update={**update, "marks": {**record.marks, MARK: True}})]


def _learned(message: Message) -> bool:
    return message.role == "assistant" and bool(message.train)


async def _think(config: ThoughtsConfig, model: Model, asked: list[Message], answer: str) -> Parsed[str]:
    if config.ask == "line":
        return await model.ask(
            asked,
            lambda text: check_leads(one_line(text), answer),
            max_tokens=LINE_TOKENS,
            temperature=config.temperature,
            stop=("\n",),
        )
    most = 60 + _STEP_TOKENS * config.steps
    parsed = await model.structured(
        asked, schema(config.steps, answer), max_tokens=most, temperature=config.temperature
    )
    steps: list[str] = parsed.value.steps  # type: ignore[attr-defined]
    return Parsed(check_leads("\n".join(steps), answer), parsed.answer, parsed.calls)


def _thoughtful(message: Message, thought: Thought) -> Message:
    """The message with its thought, which is learned as the answer is: a mask by spans moves along."""
    content = thought.joined()
    train: TrainMask = message.train
    if not isinstance(train, bool):
        ahead, before = len(content) - len(thought.answer), len(message.content) - len(thought.answer)
        spans = ((start - before + ahead, end - before + ahead) for start, end in train if end > before)
        train = ((0, ahead), *((max(start, ahead), end) for start, end in spans))
    return message.model_copy(update={"content": content, "train": train})
