"""Examples on disk: written once, one after the other, and read back one at a time from flat arrays.

    ids.bin      int32    the tokens of all sequences, one after the other
    mask.bin     bool     of each token whether it is supervised
    starts.bin   int64    where in them each sequence begins, and the end of the last
    firsts.bin   int64    the first sequence of each example, and the end of the last
    lengths.bin  int64    tokens of each example
    sizes.bin    float64  what each example counts in the mean
    values.bin   float64  [examples, values] numbers that the objective needs
    beside/      the first four, of the sequences beside the examples, where there are any
    index.json   how many values, and the sha256 of every file

Neither writing nor reading holds more than what it is at: data may be larger than memory.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

import numpy as np
import orjson
from numpy.typing import NDArray

from gristmill.core.files import atomic, fsync_folder, sha256_file
from gristmill.core.records import digest_of
from gristmill.train.packing import Example, Tokens

INDEX = "index.json"


class Examples(Sequence[Example]):
    """The examples in a folder. An example is read when it is asked for, and nothing of it is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        index = orjson.loads((folder / INDEX).read_bytes())
        self.lengths: NDArray[np.int64] = _mapped(folder / "lengths.bin", np.int64)
        self.sizes: NDArray[np.float64] = _mapped(folder / "sizes.bin", np.float64)
        self.digest = digest_of(index)
        self._files: dict[str, str] = index["files"]
        self._values = _mapped(folder / "values.bin", np.float64).reshape(-1, index["values"] or 1)
        self._sequences = _Grouped(folder)
        self._beside = _Grouped(folder / "beside") if (folder / "beside").is_dir() else None

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        values = tuple(self._values[at].tolist()) if len(self._values) else ()
        return Example(self._sequences.of(at), values, self._beside.of(at) if self._beside else ())

    def damage(self) -> str:
        """The first file that is not what was written; empty when all are."""
        return next((name for name, sha256 in self._files.items() if sha256_file(self.folder / name) != sha256), "")


class _Grouped:
    """Sequences of tokens, some to each example. Read, not mapped: mapped pages count as this process's memory."""

    def __init__(self, folder: Path) -> None:
        self._starts = _mapped(folder / "starts.bin", np.int64)
        self._firsts = _mapped(folder / "firsts.bin", np.int64)
        self._ids, self._mask = _Bytes(folder / "ids.bin"), _Bytes(folder / "mask.bin")

    def of(self, example: int) -> tuple[Tokens, ...]:
        first, end = self._firsts[example : example + 2].tolist()
        starts = self._starts[first : end + 1].tolist()
        ids = np.frombuffer(self._ids.read(4 * starts[0], 4 * starts[-1]), np.int32).astype(np.int64)
        mask = np.frombuffer(self._mask.read(starts[0], starts[-1]), np.bool_)
        ends = [start - starts[0] for start in starts]
        return tuple(Tokens(ids[a:b], mask[a:b]) for a, b in pairwise(ends))


class _Bytes:
    """An open file, read anywhere, by any thread."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._fd)

    def read(self, start: int, end: int) -> bytes:
        return os.pread(self._fd, end - start, start)


def _mapped(path: Path, kind: type[Any]) -> NDArray[Any]:
    return np.memmap(path, kind, mode="r") if path.stat().st_size else np.empty(0, kind)


class ExampleWriter:
    """Writes examples into a new folder. They can be read once it is left without an error."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        folder.mkdir(parents=True)
        self._grouped = _GroupedWriter(folder, self._stack)
        self._lengths, self._sizes, self._values = (
            self._stack.enter_context(_Column(folder / name)) for name in ("lengths.bin", "sizes.bin", "values.bin")
        )
        self._width: int | None = None  # numbers of each example

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        self._stack.close()
        if error is None:
            columns = [*self._grouped.columns, self._lengths, self._sizes, self._values]
            _seal(self._folder, self._width or 0, {column.path.name: column.sha256 for column in columns})

    def add(self, example: Example, *, size: float) -> None:
        if self._width not in (None, len(example.values)):
            raise ValueError("an objective gives each of its examples as many values")
        self._width = len(example.values)
        self._grouped.add(example.sequences)
        self._lengths.write(np.array([len(example)], np.int64))
        self._sizes.write(np.array([size], np.float64))
        self._values.write(np.array(example.values, np.float64))


def write_beside(folder: Path, examples: Iterable[Example]) -> None:
    """Add what stands beside the examples of a folder, one for one and in order."""
    index = orjson.loads((folder / INDEX).read_bytes())
    (folder / "beside").mkdir()
    with ExitStack() as stack:
        grouped = _GroupedWriter(folder / "beside", stack)
        for example in examples:
            grouped.add(example.beside)
    hashes = {f"beside/{column.path.name}": column.sha256 for column in grouped.columns}
    fsync_folder(folder / "beside")
    _seal(folder, index["values"], index["files"] | hashes)


def _seal(folder: Path, values: int, files: dict[str, str]) -> None:
    with atomic(folder / INDEX) as file:
        file.write(orjson.dumps({"values": values, "files": files}, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))


class _GroupedWriter:
    def __init__(self, folder: Path, stack: ExitStack) -> None:
        names = ("ids.bin", "mask.bin", "starts.bin", "firsts.bin")
        self.columns = [stack.enter_context(_Column(folder / name)) for name in names]
        self._tokens = self._sequences = 0
        for column in self.columns[2:]:
            column.write(np.zeros(1, np.int64))

    def add(self, sequences: Sequence[Tokens]) -> None:
        ids, mask, starts, firsts = self.columns
        for tokens in sequences:
            ids.write(tokens.ids.astype(np.int32))
            mask.write(tokens.mask)
            self._tokens += len(tokens)
            starts.write(np.array([self._tokens], np.int64))
        self._sequences += len(sequences)
        firsts.write(np.array([self._sequences], np.int64))


class _Column:
    """A file that is written from one end to the other, and hashed on the way."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._hash = hashlib.sha256()
        self._file = path.open("wb", buffering=1 << 18)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._file as file:
            file.flush()
            os.fsync(file.fileno())

    def write(self, values: NDArray[Any]) -> None:
        data = values.tobytes()
        self._hash.update(data)
        self._file.write(data)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()
