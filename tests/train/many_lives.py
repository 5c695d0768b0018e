"""A training that is killed again and again: `many_lives.py FOLDER MODEL CONFIG TRAININGS SEED`.

Each life is a fork of this process, so that all is imported once. It dies by SIGKILL right before the n-th thing that
it does to a file in FOLDER (opens, renames, removes it, ...), n drawn at random from as many as an undisturbed training
does in its first two thirds: so a life that begins late in a training reaches all of its end. What a killed life did
not finish is found by the next, until one comes through. Standard output: for each training a list of lives, each with
the step it went on from, the steps it took, and what it warned of.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

from conftest import PassOf, config_of, make_samples

from gristmill.train.run import run

EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.chmod", "os.link"}


def live(folder: Path, model: Path, settings: dict[str, Any], log: Path, *, die_at: int | None) -> None:
    """Train in `folder`; what is told goes to `log` at once."""
    done = 0

    def watch(event: str, args: tuple[Any, ...]) -> None:
        nonlocal done
        if event in EVENTS and isinstance(args[0], str | os.PathLike) and str(args[0]).startswith(str(folder)):
            done += 1
            if done == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def tell(**values: Any) -> None:
        os.write(fd, json.dumps(values).encode() + b"\n")

    def heard(values: dict[str, Any]) -> None:
        if "resumed_step" in values:
            tell(resumed=values["resumed_step"])
        if "loss" in values:
            tell(step=values["step"])

    context = PassOf(folder, model, folder / "cache", on_metric=heard)
    sys.addaudithook(watch)
    held = [s.marked(split="validation") for s in make_samples(4, texts=0, seed=9)]
    list(run(config_of(**settings), [*make_samples(16), *held], context))
    tell(done=done, warnings=context.warnings)


def in_a_fork(*args: Any, die_at: int | None) -> int:
    """The signal it died by, or 0."""
    child = os.fork()
    if child == 0:
        live(*args, die_at=die_at)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def told(log: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    life: dict[str, Any] = {"resumed": 0, "steps": [line["step"] for line in lines if "step" in line]}
    for line in lines:
        life |= {key: value for key, value in line.items() if key != "step"}
    return life


def main() -> None:
    import peft  # noqa: F401  (all that a life imports, once)
    import torch
    from transformers.models.llama import modeling_llama  # noqa: F401

    from gristmill.train import job, launch, memory  # noqa: F401

    torch.set_num_threads(1)
    folder, model, settings = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    trainings, rng = int(sys.argv[4]), random.Random(int(sys.argv[5]))
    (folder / "whole").mkdir()
    in_a_fork(folder / "whole", model, settings, folder / "whole.log", die_at=None)
    most = told(folder / "whole.log")["done"]
    out: list[list[dict[str, Any]]] = []
    for number in range(trainings):
        broken, lives = folder / f"broken-{number}", list[dict[str, Any]]()
        broken.mkdir()
        while not lives or lives[-1]["died"]:
            log = folder / f"{number}-{len(lives)}.log"
            log.touch()
            died = in_a_fork(broken, model, settings, log, die_at=rng.randint(1, most * 2 // 3))
            lives.append(told(log) | {"died": died == signal.SIGKILL})
        out.append(lives)
    sys.stdout.write(json.dumps(out))


if __name__ == "__main__":
    main()
