"""Samples to training data on disk, before step 1: rendered once, however often a training is interrupted.

In the stage's `data/`: `train/` and `validation/` (`data` says what is in them), `dropped.ndjson`, and `index.json`:
what all this was made of, and the mask report. Samples stream through and are rendered by several threads, in their
order: the same bytes for any number of threads, in the memory of a few samples.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from gristmill.core.errors import Cancelled, ConfigError, InputError, Reject
from gristmill.core.files import atomic, fsync_folder, sha256_file
from gristmill.core.records import Record, Sample, digest_of, from_row
from gristmill.core.stage import Digested, Dropped, PassContext
from gristmill.models.renderer import Renderer
from gristmill.train.config import TrainConfig
from gristmill.train.data import INDEX, Examples, ExampleWriter, write_beside
from gristmill.train.examples import Tally, examples_of, mask_report
from gristmill.train.objective import Objective
from gristmill.train.packing import Example

SPLITS, DROPPED = ("train", "validation"), "dropped.ndjson"

LAYOUT = 2
"""Of the folder and of what lies in it. Part of its identity."""

BATCH, UNDER_WAY = 1 << 17, 1 << 20
"""Characters that a thread renders at a time, and that are rendered ahead: on its way a token takes 200 bytes."""

OVERHEAD = 100
"""Characters that a sample counts besides its own."""


@dataclass(frozen=True)
class Data:
    """A folder of training data, whole."""

    folder: Path
    train: Examples
    validation: Examples
    report: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Data:
        """As it was left: for the processes that share a training with the one that prepared it."""
        report = orjson.loads((folder / INDEX).read_bytes())["report"]
        return cls(folder, Examples(folder / "train"), Examples(folder / "validation"), report)

    def damage(self, dropped: str) -> str:
        """The first file that is not what was written; empty when all are. `dropped`: the hash of that list."""
        if sha256_file(self.folder / DROPPED) != dropped:
            return DROPPED
        return self.train.damage() or self.validation.damage()

    def dropped(self) -> Iterator[Dropped]:
        """The samples that are not trained on, each with its reason, in order."""
        with (self.folder / DROPPED).open("rb") as file:
            for line in file:
                row = orjson.loads(line)
                yield Dropped(from_row(row["sample"]), row["reason"], row["detail"])


@dataclass(frozen=True)
class Preparation:
    """How samples become training data. `config` as it is `settled`."""

    config: TrainConfig
    objective: Objective
    renderer: Renderer
    ctx: PassContext

    def data(self, records: Iterable[Record], folder: Path) -> Data:
        """The samples whose split is missing, `train` or `validation`, in `folder`; those that lie there already, if
        they were made of the same samples under the same settings."""
        if self.config.context > self.renderer.context:
            raise ConfigError(
                f"context is {self.config.context} tokens, and the model reads {self.renderer.context}",
                f"Set the stage's context to at most {self.renderer.context}.",
            )
        identity = {
            "layout": LAYOUT,
            "samples": _digest(records),
            "config": digest_of(self.config.learned()),
            "template": self.renderer.template_hash,
        }
        return self._kept(folder, identity) or self._made(records, folder, identity)

    def _kept(self, folder: Path, identity: dict[str, Any]) -> Data | None:
        """What an earlier attempt left, if it is whole and of these samples."""
        try:
            index = orjson.loads((folder / INDEX).read_bytes())
            if index["identity"] != identity:
                return None
            data = Data.open(folder)
            damage = data.damage(index["dropped"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError) as error:
            damage = str(error)
        if damage:
            self.ctx.metric(rendered_again=damage)
            return None
        return data

    def _made(self, records: Iterable[Record], folder: Path, identity: dict[str, Any]) -> Data:
        temp = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(temp, ignore_errors=True)
        try:
            temp.mkdir(parents=True)
            report = self._write(records, temp)
            dropped = sha256_file(temp / DROPPED)
            with atomic(temp / INDEX) as file:
                index = {"identity": identity, "dropped": dropped, "report": report}
                file.write(orjson.dumps(index, option=orjson.OPT_INDENT_2))
            shutil.rmtree(folder, ignore_errors=True)
            temp.rename(folder)
            fsync_folder(folder.parent)
        finally:
            shutil.rmtree(temp, ignore_errors=True)
        return Data.open(folder)

    def _write(self, records: Iterable[Record], folder: Path) -> dict[str, Any]:
        tallies = {split: Tally(self.renderer) for split in SPLITS}
        done, total = 0, len(records) if isinstance(records, Sized) else 0
        with ExitStack() as stack:
            dropped = stack.enter_context(atomic(folder / DROPPED))
            writers = {split: stack.enter_context(ExampleWriter(folder / split)) for split in SPLITS}
            for batch in self._rendered(records):
                for sample, split, made in batch:
                    if isinstance(made, Reject):
                        tallies[split].dropped[made.reason] += 1
                        row = {"sample": sample.to_row(), "reason": made.reason, "detail": made.detail}
                        dropped.write(orjson.dumps(row) + b"\n")
                        continue
                    tallies[split].add(sample, made)
                    for example in made:
                        writers[split].add(example, size=self.objective.size(example))
                done += len(batch)
                self.ctx.progress(min(done, total), total, rendered=float(tallies["train"].tokens))
                if self.ctx.stopping():
                    message = "stopped while samples were turned into tokens"
                    raise Cancelled(message, "Run the same command again: it begins with them anew.")
            report = mask_report(tallies["train"], tallies["validation"], self.objective)
        held = tallies["validation"]
        if self.config.eval_every and not held.samples:
            if held.dropped:
                raise InputError(
                    f"eval_every is set, and no sample that is marked for validation can be used: {held.reasons}",
                    "Mend those samples or mark others, or leave eval_every and patience out.",
                )
            raise InputError(
                "eval_every is set, and no sample is marked for validation",
                "Mark some with a curate.split stage (validation: 0.1), or leave eval_every and patience out.",
            )
        for split in SPLITS:
            examples = Examples(folder / split)
            if (beside := self.objective.beside(examples)) is not examples:
                write_beside(folder / split, beside)
        return report

    def _rendered(self, records: Iterable[Record]) -> Iterator[list[Made]]:
        """Batches in order, made by threads: the tokenizer lets them run side by side."""
        if self.renderer.chats:
            with suppress(ConfigError):  # told again where a chat is rendered
                self.renderer.stop_ids  # noqa: B018  the template is proven once, before threads share the tokenizer
        waiting: deque[tuple[int, Future[list[Made]]]] = deque()
        with ThreadPoolExecutor(self.config.workers, "render") as pool:
            for size, batch in _batches(records):
                waiting.append((size, pool.submit(self._batch, batch)))
                while len(waiting) > 2 * self.config.workers or sum(size for size, _ in waiting) > UNDER_WAY:
                    yield waiting.popleft()[1].result()
            while waiting:
                yield waiting.popleft()[1].result()

    def _batch(self, batch: list[tuple[Sample, str]]) -> list[Made]:
        return [Made(sample, split, self._one(sample)) for sample, split in batch]

    def _one(self, sample: Sample) -> list[Example] | Reject:
        try:
            return examples_of(sample, self.objective, self.renderer)
        except Reject as reject:
            return reject


class Made(NamedTuple):
    sample: Sample
    split: str
    examples: list[Example] | Reject


def split_of(sample: Sample) -> str:
    return str(sample.marks.get("split", "train"))


def _batches(records: Iterable[Record]) -> Iterator[tuple[int, list[tuple[Sample, str]]]]:
    """The samples of both splits, a batch at a time, each with its split; and how many characters a batch holds."""
    batch: list[tuple[Sample, str]] = []
    size = 0
    for record in records:
        if not isinstance(record, Sample) or (split := split_of(record)) not in SPLITS:
            continue
        batch.append((record, split))
        said = (*record.messages, *record.chosen, *record.rejected)
        size += OVERHEAD + len(record.text) + sum(len(message.content) for message in said)
        if size > BATCH:
            yield size, batch
            batch, size = [], 0
    if batch:
        yield size, batch


def _digest(records: Iterable[Record]) -> str:
    """Names what is read. The hall's tables know it; of anything else each record is looked at."""
    if isinstance(records, Digested):
        return records.digest
    whole = hashlib.sha256()
    for record in records:
        whole.update(record.digest.encode())
    return whole.hexdigest()
