"""Writes requirements.lock: every extra, python 3.11, linux x86_64, the CPU build of torch, no address in it.

uv resolves, but it does not read pip's configuration; where pip finds its packages is handed over here.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
HEADER = "# Made by `make lock` from pyproject.toml: every extra, python 3.11, linux x86_64, CPU build of torch.\n"
HANDED_OVER = {"find-links": "--find-links", "index-url": "--index-url"}
GPU = re.compile(r"^(nvidia-(?!ml-py)|triton|cuda|pytorch-triton)", re.MULTILINE)
"""Parts of a GPU build; `nvidia-ml-py` only reads what a driver says."""


def pip_options() -> list[str]:
    """pip's find-links and index, from its files and its environment, as options of uv."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    options: list[str] = []
    for line in listed.stdout.splitlines():
        key, _, quoted = line.partition("=")
        flag = HANDED_OVER.get(key.rpartition(".")[2])
        for value in shlex.split(quoted)[0].split() if flag else ():
            if [flag, value] not in [options[i : i + 2] for i in range(0, len(options), 2)]:
                options += [str(flag), value]
    return options


def resolve() -> str:
    command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", "pyproject.toml", "--extra", "dev"]
    command += ["--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28", "--system-certs"]
    command += ["--no-header", "--no-annotate", "--no-emit-package", "gristmill", "--quiet", *sys.argv[1:]]
    return subprocess.run([*command, *pip_options()], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout


def main() -> None:
    pins = "".join(line + "\n" for line in resolve().splitlines() if line and not line.startswith(("#", "-")))
    if "torch" not in pins or "+cpu" not in pins or GPU.search(pins):
        sys.exit("no CPU build of torch: pip config set global.find-links FOLDER-OR-PAGE-WITH-IT, then again.")
    LOCK.write_text(HEADER + pins, "utf-8")


if __name__ == "__main__":
    main()
