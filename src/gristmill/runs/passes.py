"""Run a pass over the whole set. A pass that writes a folder finds it again after a kill."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from gristmill.core.errors import Cancelled, InputError, StageFailure, boundary, run_error
from gristmill.core.errors import Reject as Rejection
from gristmill.core.files import link_tree
from gristmill.core.records import Record
from gristmill.core.stage import Dropped
from gristmill.runs.context import Context, Current
from gristmill.runs.folder import TRAINING, Counts, Inputs, RunFolder, Writer
from gristmill.runs.plan import Node


async def run_pass(
    current: Current, node: Node, context: Context, counts: Counts, inputs: Inputs, writer: Writer
) -> None:
    """In a thread, so that progress, stop requests and model answers go on meanwhile."""
    counts.taken = len(inputs)
    await asyncio.to_thread(_consume, current, node, context, inputs, writer)


def _consume(current: Current, node: Node, context: Context, inputs: Inputs, writer: Writer) -> None:
    try:
        with boundary(node.kind), _held(context) if node.stage.artifacts else nullcontext():
            for made in node.stage.load()(node.config, inputs, context):
                if isinstance(made, Dropped):
                    writer.drop(made.record.to_row(), "rejected", made.reason, made.detail)
                elif made_folder(node, made):
                    folder = context.folder / str(made.marks["folder"])
                    placed = made.marked(folder=os.path.relpath(folder, current.workspace.root))
                    link_weights(current, node, placed)
                    writer.give([placed.to_row()])
                else:
                    writer.give([made.to_row()])
    except Rejection as reject:
        raise InputError(f"stage {node.name}: {reject.reason}", reject.detail) from reject
    except StageFailure as failed:  # a pass has no single record to blame: its error is the run's
        error = run_error(failed, f"stage {node.name} ({node.kind})")
        raise error from error.__cause__
    finally:
        if node.stage.artifacts:
            link_papers(context.folder, current.folder, node)


def made_folder(node: Node, record: Record) -> bool:
    """Whether a record stands for a folder that the stage wrote: weights, a tokenizer."""
    return node.stage.artifacts and "folder" in record.marks


def link_weights(current: Current, node: Node, made: Record) -> None:
    """What a stage wrote, in the run's own folder too, so that the run stands alone; adapters beside the weights."""
    source = current.workspace.root / str(made.marks["folder"])
    link_tree(source, current.folder.path / "checkpoints" / node.entry)
    if (source.parent / "adapter").is_dir():
        link_tree(source.parent / "adapter", current.folder.path / "checkpoints" / f"{node.entry}.adapter")
    link_papers(source.parent, current.folder, node)


def link_papers(made: Path, run: RunFolder, node: Node) -> None:
    """What a training says of itself, beside its weights, in the run's own folder too: also of one that has not come
    to its end."""
    if any(made.glob("*.json")):
        link_tree(made, run.path / TRAINING / node.entry, suffixes=(".json", ".ndjson", ".csv"))


@contextmanager
def _held(context: Context) -> Iterator[None]:
    """Two runs that need the same weights take turns: the second finds them made."""
    context.folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(context.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        while not _locked(fd):
            if context.stopping():
                raise Cancelled("stopped while another run trained", "Run the same command again to go on.")
            time.sleep(0.2)
        yield
    finally:
        os.close(fd)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
