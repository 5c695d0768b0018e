"""The one form of a thought before an answer: what was thought, a blank line, and `Answer: ` before what is answered.

Domain data and general data share it: were only one of them thought about, a model would learn its topics as the sign
to think. `generate.recall` writes them with its answers, `generate.thoughts` before answers that are there already.
Samples with thoughts carry the mark `thoughts`; only in those is the form looked for, so that a text that happens to
say `Answer:` stays whole.
"""

from __future__ import annotations

from dataclasses import dataclass

from gristmill.core.records import Sample

ANSWER = "Answer:"
MARK = "thoughts"
_BETWEEN = f"\n\n{ANSWER} "


@dataclass(frozen=True)
class Thought:
    """A message in its two parts; without thoughts, `thought` is empty."""

    thought: str
    answer: str

    def joined(self) -> str:
        return f"{self.thought}{_BETWEEN}{self.answer}" if self.thought else self.answer


def check_thought(text: str) -> str:
    """A thought that can be told from its answer again; ValueError otherwise, with words for the model."""
    if not (thought := text.strip()):
        raise ValueError("the thought is empty")
    if ANSWER.casefold() in thought.casefold():
        raise ValueError(f"write the thought alone, without {ANSWER!r}")
    return thought


def parted(message: str, sample: Sample) -> Thought:
    """A message of a sample in its parts, divided where the form first stands."""
    if sample.marks.get(MARK):
        thought, found, answer = message.partition(_BETWEEN)
        if found:
            return Thought(thought, answer)
    return Thought("", message)
