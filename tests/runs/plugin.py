"""A plug-in as a person would install it: a package on the path that names its stages by entry point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.runs.project import Project

_STAGES = '''
from typing import ClassVar
from gristmill.core.records import Draft
from gristmill.core.stage import Stage, StageConfig


class Make(StageConfig):
    """So many drafts."""
    count: int = 30


class Work(StageConfig):
    """Do to the record of a number what is said under it, and nothing to the others."""
    do: dict[int, str] = {}
    log: str = ""


class Whole(StageConfig):
    do: str = ""
    seconds: float = 30


STAGES = {
    "mill.make": (Stage("grist.work:make", Make, (), (Draft,), shape="pass"),),
    "mill.step": (Stage("grist.work:step", Work, (Draft,), (Draft,)),),
    "mill.pass": (Stage("grist.work:whole", Whole, (Draft,), (Draft,), shape="pass"),),
}
'''

_WORK = """
import errno
import time
from gristmill.core import errors
from gristmill.core.records import Draft
from gristmill.core.stage import Dropped


def make(config, records, ctx):
    for n in range(config.count):
        yield Draft(kind="number", data={"n": n, "text": "x" * 400})


def _act(what, ctx):
    if what == "defect":
        raise ValueError("not a number")
    if what == "memory":
        raise MemoryError("no more")
    if what == "disk":
        raise OSError(errno.ENOSPC, "No space left on device")
    if what == "reject":
        raise errors.Reject("too short", "three words")
    if hasattr(errors, what):
        raise getattr(errors, what)("as asked", "Ask otherwise.")


async def step(config, record, ctx):
    if config.log:
        with open(config.log, "a") as file:
            file.write(f"{record.data['n']}\\\\n")
    _act(config.do.get(record.data["n"], ""), ctx)
    ctx.count(seen=1)
    return [Draft(kind="done", data={"n": record.data["n"]}, parents=(record.id,))]


def whole(config, records, ctx):
    if config.do == "wait":
        end = time.monotonic() + config.seconds
        while time.monotonic() < end:
            ctx.progress(1, 2)
            if ctx.stopping():
                raise errors.Cancelled("stopped half way", "Run the same command again to go on.")
            time.sleep(0.02)
    elif config.do == "twice":
        assert len(records) == len(list(records)) == len(list(records))
    elif config.do:
        _act(config.do, ctx)
    for n, record in enumerate(records):
        if n % 10 == 9:
            yield Dropped(record, "every tenth")
        else:
            yield record
"""


def install(folder: Path, *, stages: str = _STAGES, name: str = "grist") -> Path:
    """The package and its metadata below `folder`, which belongs on PYTHONPATH."""
    package, info = folder / name, folder / f"{name}-1.0.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    (package / "__init__.py").write_text("")
    (package / "stages.py").write_text(stages)
    (package / "work.py").write_text(_WORK.replace("\\\\", "\\"))
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[gristmill.stages]\n{name} = {name}.stages:STAGES\n")
    return folder


def recipe(project: Project, *, count: int = 30, step: Any = None, whole: Any = None, **top: Any) -> Path:
    """Make drafts, work on each, then on all."""
    import yaml

    stages = {
        "make": {"kind": "mill.make", "count": count},
        "work": {"kind": "mill.step", **(step or {})},
        "all": {"kind": "mill.pass", **(whole or {})},
    }
    return project.write("recipe.yaml", yaml.safe_dump({"name": "milled", "stages": stages, **top}, sort_keys=False))
