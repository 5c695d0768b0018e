"""Texts as vectors, so that a cosine says how near two meanings are.

The local ones are static: the mean of a text's token vectors, no network behind them. They are WordLlama's
(`l2_supercat_256`: 32,000 tokens of Llama 2's vocabulary, 256 dimensions, MIT), which its package carries, so that
nothing is fetched at run time. Its files are read here; its code is not run. Good for likeness of wording and topic,
blind to order and negation, best in English.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import orjson
from numpy.typing import NDArray

from gristmill.core.ask import Model
from gristmill.core.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Vectors = NDArray[np.float32]

LIBRARY = "wordllama"
"""The package whose version decides what the local vectors are: a stage that embeds names it in `libraries`."""
MODEL = "l2_supercat_256"
_WEIGHTS, _TOKENIZER = f"weights/{MODEL}.safetensors", "tokenizers/l2_supercat_tokenizer_config.json"
_BATCH = 64  # texts; with _LONGEST it bounds the memory of their token vectors to 134 MB
_LONGEST = 2048  # tokens of a text that count: about four pages


def embed(texts: Sequence[str]) -> Vectors:
    """[n, d] float32, each row of length 1; a text without any token is a row of zeros, near nothing. A text's vector
    never depends on the texts beside it."""
    table, tokenizer = _model()
    vectors = np.zeros((len(texts), table.shape[1]), np.float32)
    for start in range(0, len(texts), _BATCH):
        batch = list(texts[start : start + _BATCH])
        ids = [each.ids[:_LONGEST] for each in tokenizer.encode_batch(batch, add_special_tokens=False)]
        rows = [number for number, each in enumerate(ids) if each]
        if not rows:
            continue
        starts = np.cumsum([0, *(len(ids[row]) for row in rows[:-1])])
        tokens = table[np.fromiter(chain.from_iterable(ids), np.int64)]
        vectors[[start + row for row in rows]] = np.add.reduceat(tokens.astype(np.float32), starts, axis=0)
    return _normalised(vectors)


async def embed_with(model: Model, texts: Sequence[str]) -> Vectors:
    """The same by the embedding model of a role. For steps, which alone may ask."""
    vectors = np.array(await model.embed(texts), np.float32).reshape(len(texts), -1)
    return _normalised(vectors)


def packed(vector: Vectors) -> str:
    """A vector as a mark of a record, for a later pass: half precision, base64."""
    return base64.b64encode(vector.astype("<f2").tobytes()).decode()


def unpacked(marks: Sequence[str]) -> Vectors:
    """Packed vectors as rows of length 1."""
    rows = [np.frombuffer(base64.b64decode(mark), "<f2") for mark in marks]
    return _normalised(np.stack(rows).astype(np.float32))


def _normalised(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return unit


@cache
def _model() -> tuple[NDArray[np.float16], Tokenizer]:
    from tokenizers import Tokenizer

    spec = find_spec(LIBRARY)
    if spec is None or spec.origin is None:
        raise ConfigError("the local embeddings are not installed", f"pip install {LIBRARY}")
    folder = Path(spec.origin).parent
    return _table(folder / _WEIGHTS), Tokenizer.from_file(str(folder / _TOKENIZER))


def _table(path: Path) -> NDArray[np.float16]:
    """The one tensor of a safetensors file: the header's length (8 bytes), the header (JSON), the data."""
    with path.open("rb") as file:
        header = orjson.loads(file.read(int.from_bytes(file.read(8), "little")))
        (tensor,) = [each for name, each in header.items() if name != "__metadata__"]
        if tensor["dtype"] != "F16":
            raise ConfigError(f"{path} holds {tensor['dtype']}, not half precision", f"Install {LIBRARY} as locked.")
        return np.frombuffer(file.read(), "<f2").reshape(tensor["shape"])
