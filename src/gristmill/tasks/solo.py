"""One model, one task, one answer: greedy, and whatever comes is the attempt. A truncated answer is an attempt too."""

from __future__ import annotations

from gristmill.core.ask import Model
from gristmill.core.records import Episode, Message, Origin, Task


def messages_for(task: Task, *, open_book: bool, instruction: str = "") -> list[Message]:
    """Closed book: the question as it stands, the way it stands in training. Open book: the source text above it."""
    question = f"{task.context.strip()}\n\n{task.question}" if open_book else task.question
    system = [Message(role="system", content=instruction)] if instruction else []
    return [*system, Message(role="user", content=question)]


async def attempt(
    task: Task, *, model: Model, arm: str, stage: str, max_tokens: int, open_book: bool = False, instruction: str = ""
) -> Episode:
    """The model's answer at temperature 0."""
    messages = messages_for(task, open_book=open_book, instruction=instruction)
    answer = await model.chat(messages, max_tokens=max_tokens, temperature=0.0)
    return Episode(
        arm=arm,
        answer=answer.text,
        finish=answer.finish,
        tokens=answer.tokens,
        logprobs=answer.logprobs,
        parents=(task.id,),
        origin=Origin(stage=stage, model=answer.model, calls=(answer.key,)),
    )
