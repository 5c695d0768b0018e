"""A tokenizer on disk is read again whenever its file is another one."""

from __future__ import annotations

import json
import os
from pathlib import Path

from gristmill.ingest.stages import ChunkConfig
from gristmill.ingest.tokenizer import counter, inputs
from gristmill.models.renderer import Renderer
from gristmill.models.weights import locate


def test_another_file_with_the_same_time_is_read_again(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    Renderer.load(locate("smollm2-135m-instruct", base=Path())).save_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 512}))
    (folder / "model.safetensors").write_bytes(b"")
    config = ChunkConfig(kind="ingest.chunk", tokenizer="model")
    assert folder / "tokenizer.json" in inputs(config, tmp_path)
    before = counter(config, tmp_path)("The mill is old")

    file = folder / "tokenizer.json"
    status = file.stat()
    tokenizer = json.loads(file.read_text("utf-8"))
    tokenizer["model"]["merges"] = []
    file.write_text(json.dumps(tokenizer), "utf-8")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert counter(config, tmp_path)("The mill is old") > before
