"""Run a pass over the whole set. A pass that writes a folder finds it again after a kill."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gristmill.core.errors import InputError, StageFailure, boundary, run_error
from gristmill.core.errors import Reject as Rejection
from gristmill.core.files import link_tree
from gristmill.core.records import Checkpoint, Record
from gristmill.core.stage import Dropped
from gristmill.runs.context import Context, Current
from gristmill.runs.folder import Counts, Reject, Writer
from gristmill.runs.plan import Node


async def run_pass(
    current: Current, node: Node, context: Context, counts: Counts, inputs: list[Record], writer: Writer
) -> None:
    """In a thread, so that progress, stop requests and model answers go on meanwhile."""
    counts.taken = len(inputs)
    with _held(context.folder) if node.stage.artifacts else _nothing():
        await asyncio.to_thread(_consume, current, node, context, inputs, writer)


def _consume(current: Current, node: Node, context: Context, inputs: list[Record], writer: Writer) -> None:
    try:
        with boundary(node.kind):
            for made in node.stage.load()(node.config, inputs, context):
                if isinstance(made, Dropped):
                    writer.drop(Reject(made.record, "rejected", made.reason, made.detail))
                elif isinstance(made, Checkpoint):
                    writer.give([_placed(current, node, context, made)])
                else:
                    writer.give([made])
    except Rejection as reject:
        raise InputError(f"stage {node.name}: {reject.reason}", reject.detail) from reject
    except StageFailure as failed:  # a pass has no single record to blame: its error is the run's
        error = run_error(failed, f"stage {node.name} ({node.kind})")
        raise error from error.__cause__


def _placed(current: Current, node: Node, context: Context, made: Checkpoint) -> Checkpoint:
    """Link the weights into the run's own folder, and say where they lie in the workspace."""
    source = context.folder / str(made.marks["folder"])
    link_tree(source, current.folder.path / "checkpoints" / node.entry)
    return made.marked(folder=os.path.relpath(source, current.workspace.root))


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Two runs that need the same weights take turns: the second finds them made."""
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextmanager
def _nothing() -> Iterator[None]:
    yield
