"""Graders: a plain dictionary of functions from a task and an answer to a verdict, which nothing else decides."""

from __future__ import annotations

from typing import Protocol

from gristmill.core.errors import ConfigError
from gristmill.core.records import Episode, Score, Task
from gristmill.tasks.graders import short_answer
from gristmill.tasks.graders.verdict import Verdict


class Grader(Protocol):
    def __call__(self, task: Task, *, answer: str, finish: str) -> Verdict: ...


GRADERS: dict[str, Grader] = {"short_answer": short_answer.grade}


def score(task: Task, episode: Episode) -> Score:
    """The verdict of the task's own grader on an attempt, as a record."""
    grader = GRADERS.get(task.grader)
    if grader is None:
        raise ConfigError(f"no grader is called {task.grader}", f"Known: {', '.join(GRADERS)}.")
    verdict = grader(task, answer=episode.answer, finish=episode.finish)
    return Score(value=verdict.value, reason=verdict.reason, grader=task.grader, parents=(episode.id,))
