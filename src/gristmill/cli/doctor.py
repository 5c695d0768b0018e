"""`gristmill doctor`: what this machine has, what is missing, and the line that installs it."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

import typer

from gristmill.cli.options import HERE, Json, WorkspaceFolder, print_json
from gristmill.core.extras import EXTRAS, install_line, missing

OPTIONAL = ("tesseract", "train", "serve")
"""What a recipe may well do without."""


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(workspace: WorkspaceFolder = HERE, json: Json = False) -> None:
    """Check this machine and this installation.

    Exit code 2 when something that most recipes need is missing.
    """
    findings = [*_machine(workspace), *_packages(), *_tools(), *_models()]
    if json:
        print_json([dict(zip(("what", "ok", "found", "do"), f, strict=True)) for f in findings])
    else:
        for what, ok, found, do in findings:
            mark = "ok  " if ok else "miss"
            typer.echo(f"{mark}  {what:<24} {found}" + (f"   {do}" if not ok else ""))
    if not all(ok for what, ok, _, _ in findings if what not in OPTIONAL):
        raise typer.Exit(2)


Finding = tuple[str, bool, str, str]


def _machine(workspace: Path) -> list[Finding]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    home = workspace if workspace.exists() else Path()
    free = shutil.disk_usage(home).free / 2**30
    return [
        ("python", True, platform.python_version(), ""),
        ("cores", True, str(len(os.sched_getaffinity(0))), ""),
        ("memory", memory > 3, f"{memory:.1f} GiB", "4 GiB are needed to train the smallest model."),
        ("disk", free > 5, f"{free:.0f} GiB free", "5 GiB are needed for weights and checkpoints."),
    ]


def _packages() -> list[Finding]:
    findings: list[Finding] = []
    for extra, modules in EXTRAS.items():
        gone = missing(extra)
        found = f"missing: {', '.join(gone)}" if gone else f"{len(modules)} modules"
        findings.append((extra, not gone, found, install_line(extra)))
    return findings


def _tools() -> list[Finding]:
    found = shutil.which("tesseract")
    return [("tesseract", found is not None, found or "not found", "Reads scanned pages: apt install tesseract-ocr")]


def _models() -> list[Finding]:
    from gristmill.models.catalogue import CATALOGUE, find

    return [
        (name, find(name) is not None, "installed" if find(name) else "not installed", f"gristmill models get {name}")
        for name in CATALOGUE
    ]
