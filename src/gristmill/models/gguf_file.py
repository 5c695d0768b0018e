"""Reads a GGUF file: typed metadata and where each tensor lies. Layout: ggml's docs/gguf.md, versions 2 and 3.

Own reader because the `gguf` package's takes 1.6 s (SmolLM2) to 6 s (152k tokens) for the same metadata: it makes numpy
views of every string. Tensor data stays on disk until asked for, and is dequantised by the `gguf` package.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from gristmill.core.errors import InputError

MAGIC = b"GGUF"


class Kind(IntEnum):
    """Value types of the metadata, by their number in the file."""

    UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64, FLOAT64 = range(13)


_FORMATS = dict(zip(Kind, ["B", "b", "H", "h", "I", "i", "f", "?", "", "", "Q", "q", "d"], strict=True))
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Value:
    """One metadata value with its type; `item` is the type of an array's items."""

    kind: Kind
    value: Any
    item: Kind | None = None


@dataclass(frozen=True)
class TensorPlace:
    """Where a tensor lies: its shape in ggml order (fastest first), ggml type number, and byte offset in the file."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int

    @property
    def elements(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class GgufFile:
    path: Path
    values: dict[str, Value]
    tensors: dict[str, TensorPlace]

    def get(self, key: str, default: Any = None) -> Any:
        return self.values[key].value if key in self.values else default

    @property
    def architecture(self) -> str:
        return str(self.get("general.architecture", ""))

    def arch(self, key: str, default: Any = None) -> Any:
        """A metadata value under the architecture's prefix, such as `context_length`."""
        return self.get(f"{self.architecture}.{key}", default)


class _Cursor:
    """Walks over the bytes of a GGUF header."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 0

    def scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def strings(self, count: int) -> list[str]:
        data, at, unpack, out = self.data, self.at, _LENGTH.unpack_from, []
        for _ in range(count):
            start = at + 8
            at = start + unpack(data, at)[0]
            if at > len(data):
                raise struct.error("a string reaches past the end of the file")
            out.append(data[start:at].decode("utf-8", "surrogateescape"))
        self.at = at
        return out

    def array(self, item: Kind, count: int) -> list[Any]:
        if item is Kind.STRING:
            return self.strings(count)
        if item is Kind.ARRAY:
            raise struct.error("nested arrays")
        layout = f"<{count}{_FORMATS[item]}"
        values = list(struct.unpack_from(layout, self.data, self.at))
        self.at += struct.calcsize(layout)
        return values

    def value(self) -> Value:
        kind = Kind(self.scalar("I"))
        if kind is Kind.STRING:
            return Value(kind, self.strings(1)[0])
        if kind is Kind.ARRAY:
            item, count = Kind(self.scalar("I")), self.scalar("Q")
            return Value(kind, self.array(item, count), item)
        return Value(kind, self.scalar(_FORMATS[kind]))

    def tensor(self) -> TensorPlace:
        name = self.strings(1)[0]
        shape = tuple(self.scalar("Q") for _ in range(self.scalar("I")))
        return TensorPlace(name, shape, self.scalar("I"), self.scalar("Q"))


def is_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def read_gguf(path: Path) -> GgufFile:
    """The metadata and tensor table of a file. The last few files are remembered, by path, size and time."""
    try:
        state = path.stat()
        return _read(path, state.st_size, state.st_mtime_ns)
    except (OSError, struct.error, ValueError, MemoryError) as error:
        raise InputError(f"{path} is not a whole GGUF file: {error}", "Get the file again, or name another.") from error


@lru_cache(maxsize=4)
def _read(path: Path, size: int, mtime_ns: int) -> GgufFile:  # noqa: ARG001  (size and time are part of the cache key)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] != MAGIC:
            raise ValueError("it does not begin with GGUF")
        cursor = _Cursor(data)
        cursor.at = 4
        version, tensors, count = cursor.scalar("I"), cursor.scalar("Q"), cursor.scalar("Q")
        if version not in (2, 3):
            raise ValueError(f"version {version}")
        values = {cursor.strings(1)[0]: cursor.value() for _ in range(count)}
        places = [cursor.tensor() for _ in range(tensors)]
        align = values["general.alignment"].value if "general.alignment" in values else 32
        begin = -(-cursor.at // align) * align
        placed = {p.name: TensorPlace(p.name, p.shape, p.type, begin + p.offset) for p in places}
        if any(p.offset >= size for p in placed.values()):
            raise ValueError("its tensors reach past its end")
    return GgufFile(path, values, placed)
