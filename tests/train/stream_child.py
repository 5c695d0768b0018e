"""Reads, renders and reads back Parquet files of so many megabytes of text, as a training does. Prints the peak memory
after each."""

from __future__ import annotations

import random
import resource
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.core.records import File
from gristmill.ingest import samples
from gristmill.ingest.stages import SamplesConfig
from gristmill.models.renderer import Renderer
from gristmill.models.weights import locate
from gristmill.train.kinds import SftConfig
from gristmill.train.objective import objective_of
from gristmill.train.order import Order
from gristmill.train.packing import collate
from gristmill.train.prepare import Preparation

LETTERS, WORD, ROW = "abcdefghijklmnop", 128, 1 << 16
WORDS = [letter * WORD for letter in LETTERS]


def write_tokenizer(folder: Path) -> None:
    """Words of one letter are one token each: rendering is as fast as it can be."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {token: at for at, token in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    merges = []
    for letter in LETTERS:
        word = letter
        while len(word) < WORD:
            merges.append((word, word))
            word += word
            vocabulary[word] = len(vocabulary)
        merges.append(("Ġ", word))
        vocabulary["Ġ" + word] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))


def write_table(path: Path, megabytes: int) -> None:
    """One row group, of pages of a megabyte: a page is the least that can be read."""
    rng = random.Random(megabytes)
    rows = [" ".join(rng.choices(WORDS, k=ROW // WORD)) for _ in range((megabytes << 20) // ROW)]
    pq.write_table(pa.table({"text": rows}), path, compression="none", use_dictionary=False, write_batch_size=8)


class Records:
    """Samples as the hall hands them over: read anew at each iteration."""

    def __init__(self, path: Path) -> None:
        self.digest = path.name
        self._file = File(path=path.name, sha256="", size=path.stat().st_size, marks={"location": str(path)})
        self._config = SamplesConfig(kind="ingest.samples", paths=[str(path)])

    def __iter__(self) -> Any:
        ctx: Any = SimpleNamespace(progress=nothing, count=nothing)
        return iter(samples.run(self._config, [self._file], ctx))


def nothing(*_: Any, **__: Any) -> None:
    pass


class Context:
    """What preparing needs of a pass's context."""

    progress = metric = nothing

    def stopping(self) -> bool:
        return False


def main(folder: Path, sizes: list[int]) -> None:
    renderer = Renderer.load(locate(str(folder / "model"), base=Path("/")))
    config = SftConfig(kind="train.sft", model="student", context=256)
    ctx: Any = Context()
    for megabytes in sizes:
        records = Records(folder / f"{megabytes}.parquet")
        data = Preparation(config, objective_of(config), renderer, ctx).data(records, folder / str(megabytes))
        order = Order(data.train.lengths, config.context, 7, 4)
        for step in range(order.steps_for(order.rows_for(epochs=1))):
            rows = order.step(step, rows=order.rows_for(epochs=1))
            parts = [collate([data.train[at] for at in row]) for row in order.passes(rows)]
            assert sum(len(part.targets) for part in parts) == data.train.sizes[[at for r in rows for at in r]].sum()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(size) for size in sys.argv[2:]])
