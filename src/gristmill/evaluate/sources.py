"""Where an exam's answers come from: the passage that holds one, and the training samples that may have taught it.

Ranking is BM25 (Robertson and Zaragoza 2009; k1 1.5, b 0.75) over a few hundred texts in memory; searching large
collections is the business of `gristmill.retrieve`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from math import log
from pathlib import PurePosixPath

from gristmill.core.records import Chunk, Sample, Task
from gristmill.tasks.graders.short_answer import find
from gristmill.tasks.graders.words import Word, read_words
from gristmill.tasks.task import question_key


class Ranking:
    """Texts, ranked by how well their words meet a question's."""

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        self._counts = [Counter(text) for text in texts]
        self._mean = sum(map(len, texts)) / max(1, len(texts)) or 1.0
        holding = Counter(word for counts in self._counts for word in counts)
        self._rarity = {w: log(1 + (len(texts) - n + 0.5) / (n + 0.5)) for w, n in holding.items()}

    def score(self, at: int, words: Sequence[str]) -> float:
        counts = self._counts[at]
        room = 1.5 * (0.25 + 0.75 * counts.total() / self._mean)
        return sum(self._rarity[w] * counts[w] * 2.5 / (counts[w] + room) for w in set(words) if counts[w])


class Library:
    """The chunks of a run, to find the passage for an open-book candidate."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self._chunks = chunks
        self._words = [read_words(" ".join([*c.headings, c.text])) for c in chunks]
        self._ranking = Ranking([[w.text for w in words] for words in self._words])
        self._paths = {c.path for c in chunks}

    def passage_for(self, task: Task) -> str | None:
        """The chunk that an expert would hand over: of the task's document, holding a reference answer if one does, and
        nearest to the question. It looks at the answer on purpose: open book is a reference, not a contestant."""
        path = self._path(task.document)
        if path is None:
            return None
        asked = [w.text for w in read_words(task.question)]
        answers = _answers(task)
        places = [i for i, c in enumerate(self._chunks) if not path or c.path == path]
        best = max(
            places, key=lambda i: (_holds(self._words[i], answers), self._ranking.score(i, asked), -i), default=None
        )
        return None if best is None else self._chunks[best].text

    def _path(self, document: str) -> str | None:
        """The path that the exam means; where folders differ, the one document of that name. None: it was not read."""
        if not document or document in self._paths:
            return document
        named = [path for path in self._paths if _name(path) == _name(document)]
        return named[0] if len(named) == 1 else None


class Teaching:
    """The training samples, to say which of them taught an answer and which ask the exam's own question."""

    def __init__(self, taught: Sequence[Sample]) -> None:
        self._samples = taught
        self._words = [read_words(_whole(sample)) for sample in taught]
        self._ranking = Ranking([[w.text for w in words] for words in self._words])
        self._asking: defaultdict[str, list[str]] = defaultdict(list)
        for sample in taught:
            for message in sample.messages:
                if message.role == "user":
                    self._asking[question_key(message.content)].append(sample.id)

    def of(self, task: Task, *, most: int = 3) -> list[str]:
        """Ids of samples that hold a reference answer and share words with the question, nearest first."""
        asked = [w.text for w in read_words(task.question)]
        answers = _answers(task)
        held = [
            (self._ranking.score(i, asked), -i)
            for i, sample in enumerate(self._samples)
            if self._about(sample, task) and _holds(self._words[i], answers)
        ]
        return [self._samples[-i].id for points, i in sorted(held, reverse=True)[:most] if points > 0]

    def asking(self, task: Task) -> list[str]:
        return self._asking.get(question_key(task.question), [])

    @staticmethod
    def _about(sample: Sample, task: Task) -> bool:
        """Whether a sample may rest on the task's document; one without quotes may rest on any."""
        names = {_name(quote.path) for quote in sample.quotes}
        return not task.document or not names or _name(task.document) in names


def _whole(sample: Sample) -> str:
    return "\n".join([sample.text, *(message.content for message in sample.messages)])


def _answers(task: Task) -> list[list[Word]]:
    return [words for words in map(read_words, task.answers) if words]


def _name(path: str) -> str:
    return PurePosixPath(path).name


def _holds(words: Sequence[Word], answers: Sequence[Sequence[Word]]) -> bool:
    return any(find(reference, words) for reference in answers)
