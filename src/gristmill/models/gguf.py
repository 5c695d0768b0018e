"""Weights → a GGUF that llama.cpp serves. Kept in a cache under the hash of what it was made from, written atomically.

What stands before the tensors comes from `gguf_meta`: a model that came from a GGUF keeps that file's metadata, so that
nothing about its tokenizer changes on the way but what training added; a folder of a mapped architecture is described
from its own files. All others go through llama.cpp's own converter (`convert`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gristmill.core.errors import CheckpointError
from gristmill.core.files import atomic
from gristmill.core.records import digest_of
from gristmill.models import architecture, catalogue, checkpoint, gguf_meta
from gristmill.models.architecture import Array
from gristmill.models.convert import CONVERTER, convert
from gristmill.models.gguf_file import GgufFile, Kind, read_gguf
from gristmill.models.load import require_text
from gristmill.models.tokenizer import load_vocabulary
from gristmill.models.weights import Weights, at_folder, is_gguf

Quantization = Literal["q8_0", "f16"]
_FORMAT = 2  # of the files written here: part of their names in the cache
_FILE_TYPES = {"f16": 1, "q8_0": 7}  # llama.cpp's llama_ftype


def prepare(weights: Weights, *, quantization: Quantization | None, cache: Path, base: Weights | None = None) -> Path:
    """The path of a GGUF of these weights. Without `quantization` a GGUF stays as it is and a folder becomes f16.

    `base` is the GGUF whose metadata a folder takes over; a checkpoint names its own.
    """
    require_text(weights)
    if weights.form == "gguf" and quantization is None:
        return weights.path
    kind: Quantization = quantization or "f16"
    origin = weights if weights.form == "gguf" else base or base_of(weights)
    name = digest_of([_FORMAT, weights.sha256, origin.sha256 if origin else CONVERTER[0], kind])[:32]
    target = cache / f"{name}-{kind}.gguf"
    if target.is_file():
        return target
    if weights.form == "checkpoint":
        checkpoint.verify(weights.path)
    described = describe(weights, origin)
    if described is None:
        convert(weights.path, target, kind, cache)
    else:
        _write(weights, described, target, kind)
    return target


def describe(weights: Weights, origin: Weights | None) -> GgufFile | None:
    """The model as a GGUF says it, tensors aside; None where only llama.cpp's converter can."""
    if weights.form == "gguf":
        architecture.check_family(file := read_gguf(weights.path))
        return file
    shapes, vocabulary = _shapes(weights.path), load_vocabulary(weights)
    if origin is not None:
        return gguf_meta.of_descendant(read_gguf(origin.path), vocabulary, shapes)
    return gguf_meta.of_folder(weights, vocabulary, shapes)


def base_of(weights: Weights) -> Weights | None:
    """The GGUF that a checkpoint descends from, by the manifests; None where the line ends in an HF folder."""
    if weights.form != "checkpoint":
        return weights if weights.form == "gguf" else None
    stated = checkpoint.read_manifest(weights.path).metadata.get("base", {})
    known = [entry.name for entry in catalogue.CATALOGUE.values() if entry.sha256 == stated.get("sha256")]
    named = [catalogue.find(name) for name in known]
    path = next((p for p in named if p), Path(stated.get("path", "")))
    if stated.get("form") == "hf":
        return None
    if path.is_file() and is_gguf(path):
        return Weights(path, "gguf", stated["sha256"])
    if path.is_dir() and stated.get("form") == "checkpoint":
        return base_of(at_folder(path))
    raise CheckpointError(
        f"the base model of {weights.path.name} is not where it was: {path}",
        "Put it back: its tokenizer and architecture become part of the exported file.",
    )


# ---- from a GGUF's metadata ----


def _write(weights: Weights, origin: GgufFile, target: Path, kind: Quantization) -> None:
    import gguf

    with atomic(target) as file, _tensors(weights) as tensor:
        path = Path(file.name)  # written by gguf's writer, then synced and renamed by `atomic`
        writer = gguf.GGUFWriter(path, origin.architecture)
        _copy_metadata(writer, origin, kind)
        types = {name: _type(place.shape, kind) for name, place in origin.tensors.items()}
        for name, place in origin.tensors.items():
            shape = place.shape[::-1]
            stored = gguf.quant_shape_to_byte_shape(shape, types[name]) if _is_q8(types[name]) else shape
            item = {gguf.GGMLQuantizationType.F32: np.float32, gguf.GGMLQuantizationType.F16: np.float16}
            dtype = np.dtype(item.get(types[name], np.uint8))
            size = int(np.prod(stored)) * dtype.itemsize
            writer.add_tensor_info(name, stored, dtype, size, raw_dtype=types[name])
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, place in origin.tensors.items():
            values = tensor(name)
            if values.shape != place.shape[::-1]:
                raise CheckpointError(f"{name} has the shape {values.shape}, its base {place.shape[::-1]}", "Retrain.")
            writer.write_tensor_data(_packed(origin, name, values, types[name]))
        writer.close()


def _packed(file: GgufFile, name: str, values: Array, kind: Any) -> Array:
    """A tensor in ggml's order and the type it is stored in."""
    import gguf

    heads = architecture.rotary_heads(file, name)
    rows = architecture.to_ggml_rows(values, heads) if heads else values
    return np.asarray(gguf.quantize(np.ascontiguousarray(rows), kind))


def same_tensors(weights: Weights, path: Path) -> int:
    """How many tensors of a GGUF are, byte for byte, those of `weights`: all, or a CheckpointError names one.

    0 for an architecture whose tensors are not mapped here. `rope_freqs`, which llama.cpp's converter works out from
    the config, is no tensor of the model.
    """
    import gguf

    file = read_gguf(path)
    if file.architecture not in architecture.FAMILIES:
        return 0
    data = np.memmap(path, dtype=np.uint8, mode="r")
    places = {name: place for name, place in file.tensors.items() if name != "rope_freqs.weight"}
    with _tensors(weights) as tensor:
        for name, place in places.items():
            packed = _packed(file, name, tensor(name), gguf.GGMLQuantizationType(place.type))
            expected = packed.reshape(-1).view(np.uint8)
            if not np.array_equal(expected, data[place.offset : place.offset + expected.size]):
                raise CheckpointError(f"{path.name} is not the trained model: {name} differs", "Export it again.")
    return len(places)


def _copy_metadata(writer: Any, origin: GgufFile, kind: Quantization) -> None:
    import gguf

    for key, value in origin.values.items():
        if key not in ("general.architecture", "general.file_type", "general.alignment"):
            item = None if value.item is None else gguf.GGUFValueType(value.item)
            writer.add_key_value(key, value.value, gguf.GGUFValueType(value.kind), sub_type=item)
    writer.add_key_value("general.file_type", _FILE_TYPES[kind], gguf.GGUFValueType(Kind.UINT32))


def _type(shape: tuple[int, ...], kind: Quantization) -> Any:
    """Vectors (norms, biases) stay float32; rows that do not divide into blocks of 32 stay float16."""
    import gguf

    if len(shape) == 1:
        return gguf.GGMLQuantizationType.F32
    whole_blocks = shape[0] % 32 == 0
    return gguf.GGMLQuantizationType.Q8_0 if kind == "q8_0" and whole_blocks else gguf.GGMLQuantizationType.F16


def _is_q8(kind: Any) -> bool:
    return str(kind.name) == "Q8_0"


@contextmanager
def _tensors(weights: Weights) -> Iterator[Callable[[str], Array]]:
    """A function from a GGUF tensor name to its values, float32, in transformers' order."""
    if weights.form == "gguf":
        file, data = read_gguf(weights.path), np.memmap(weights.path, dtype=np.uint8, mode="r")
        yield lambda name: architecture.read_tensor(file, name, data)
        return
    places = _safetensors(weights.path)

    def read(name: str) -> Array:
        found = places.get(architecture.hf_name(name))
        if found is None:
            raise CheckpointError(f"{weights.path.name} lacks the tensor {architecture.hf_name(name)}", "Train again.")
        return found()

    yield read


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a folder; nothing but headers is read."""
    from safetensors import safe_open

    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(str(path), framework="np") as file:
            found |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return found


def _safetensors(folder: Path) -> dict[str, Callable[[], Array]]:
    """Every tensor of a folder by name, read when called. Through torch, because numpy knows no bfloat16."""
    from safetensors import safe_open

    def reader(path: Path, name: str) -> Callable[[], Array]:
        def read() -> Array:
            with safe_open(str(path), framework="pt") as file:
                return np.asarray(file.get_tensor(name).float().numpy())

        return read

    found: dict[str, Callable[[], Array]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(str(path), framework="pt") as file:
            names = list(file.keys())
            found |= {name: reader(path, name) for name in names}
    return found
