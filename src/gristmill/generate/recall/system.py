"""System messages, varied and sometimes left out, so that a model learns its matter and not the words above it.

What a chat gets depends on its id and the recipe's seed alone. A message that is there already stays, below the new
one. A chat that loses its thoughts is told to answer at once: a model that sees both learns to be told.
"""

from __future__ import annotations

from gristmill.core.prompt import Prompt
from gristmill.core.records import Chunk, Message, Sample, TrainMask
from gristmill.core.stage import StepContext
from gristmill.core.thoughts import MARK, parted
from gristmill.generate.recall.stages import SystemConfig


async def run(config: SystemConfig, record: Sample, ctx: StepContext) -> list[Sample]:
    if record.form != "chat":
        ctx.count(**{"no chat: as it is": 1})
        return [record]
    rng = ctx.rng(record, "system")
    drawn = [rng.random(), rng.random(), rng.random()]  # always three, so that one share never moves another's choices
    texts = [] if drawn[0] < config.drop else [config.messages[int(drawn[1] * len(config.messages))]]
    unthought = bool(record.marks.get(MARK)) and drawn[2] < config.drop_thoughts
    if unthought and config.at_once:
        texts.append(config.at_once)
    ctx.count(**{"with a system message" if texts else "without one": 1})
    if unthought:
        ctx.count(**{"thoughts taken": 1})
    messages = [_unthought(message, record) if unthought else message for message in record.messages]
    if texts:
        messages = _under("\n\n".join(_filled(text, config, record, ctx) for text in texts), messages)
    if tuple(messages) == record.messages:
        return [record]
    marks = {name: value for name, value in record.marks.items() if not (unthought and name == MARK)}
    return [record.model_copy(update={"messages": tuple(messages), "parents": (record.id,), "marks": marks})]


def _filled(text: str, config: SystemConfig, record: Sample, ctx: StepContext) -> str:
    chunk = ctx.ancestor(record, Chunk)
    values = {
        "title": chunk.title if chunk else "",
        "path": chunk.path if chunk else "",
        "language": record.language,
        **config.context,
    }
    return Prompt("system", f"@user\n{text}").render(**values)[0].content


def _under(text: str, messages: list[Message]) -> list[Message]:
    if messages and messages[0].role == "system":
        first = messages[0]
        train: TrainMask = first.train
        if not isinstance(train, bool):
            train = tuple((start + len(text) + 2, end + len(text) + 2) for start, end in train)
        return [Message(role="system", content=f"{text}\n\n{first.content}", train=train), *messages[1:]]
    return [Message(role="system", content=text), *messages]


def _unthought(message: Message, record: Sample) -> Message:
    """The answer alone; the mask moves along."""
    if message.role != "assistant":
        return message
    answer = parted(message.content, record).answer
    gone, train = len(message.content) - len(answer), message.train
    if not isinstance(train, bool):
        train = tuple((max(0, start - gone), end - gone) for start, end in train if end > gone)
    return Message(role="assistant", content=answer, train=train)
