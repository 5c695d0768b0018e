"""`gristmill doctor`: what this machine has, what is missing, and the line that installs it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path

import typer

from gristmill.cli.options import HERE, Json, WorkspaceFolder, print_json

PARTS = {
    "train": ("torch", "transformers", "peft", "safetensors"),
    "serve": ("fastapi", "uvicorn"),
    "documents": ("pypdfium2", "mammoth", "python-pptx", "openpyxl", "trafilatura", "lxml"),
    "local models": ("xllamacpp",),
}


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(workspace: WorkspaceFolder = HERE, json: Json = False) -> None:
    """Check this installation; exit 2 when something that most recipes need is missing."""
    findings = [*_machine(workspace), *_packages(), *_tools(), *_models()]
    if json:
        print_json([dict(zip(("what", "ok", "found", "do"), f, strict=True)) for f in findings])
    else:
        for what, ok, found, do in findings:
            mark = "ok  " if ok else "miss"
            typer.echo(f"{mark}  {what:<24} {found}" + (f"   {do}" if not ok else ""))
    if not all(ok for what, ok, _, _ in findings if what not in ("tesseract", "train", "serve")):
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
    for part, packages in PARTS.items():
        versions = {p: _version(p) for p in packages}
        missing = [p for p, v in versions.items() if v is None]
        found = ", ".join(f"{p} {v}" for p, v in versions.items() if v) or "nothing"
        extra = f"pip install 'gristmill[{part}]'" if part in ("train", "serve") else f"pip install {' '.join(missing)}"
        findings.append((part, not missing, found, extra))
    return findings


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _tools() -> list[Finding]:
    found = shutil.which("tesseract")
    return [("tesseract", found is not None, found or "not found", "Reads scanned pages: apt install tesseract-ocr")]


def _models() -> list[Finding]:
    from gristmill.models.catalogue import CATALOGUE, find

    return [
        (name, find(name) is not None, "installed" if find(name) else "not installed", f"gristmill models get {name}")
        for name in CATALOGUE
    ]
