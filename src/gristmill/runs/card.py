"""What a run knows of a model it trained, gathered for the model's card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gristmill.core.records import File, Report, Sample
from gristmill.core.versions import Said, said_of, version_of
from gristmill.models import catalogue
from gristmill.models.card import Arm, ModelCard
from gristmill.models.checkpoint import Manifest
from gristmill.models.hub import PREFIX
from gristmill.runs.folder import Output, RunFolder
from gristmill.runs.trail import Trail, entry_of


def card_of(folder: RunFolder, stage: str, manifest: Manifest, *, form: str, proof: str, loading: str) -> ModelCard:
    """The card of what `stage` trained. `manifest`: of its checkpoint."""
    run, outputs = folder.manifest, folder.outputs()
    base = {"path": "", "sha256": "", **manifest.metadata.get("base", {})}
    name, hub, licence = _base(str(base["path"]))
    recipe = yaml.safe_load((folder.path / "recipe.yaml").read_text("utf-8"))
    used = _used([outputs[name] for name in Trail(folder).given_to(stage)])
    return ModelCard(
        title=f"{run['name']}: {stage}",
        base=name,
        base_hub=hub,
        base_sha256=str(base["sha256"]),
        licence=licence,
        languages=sorted(used.languages),
        run={**_run(folder, run), "data": used.version},
        documents=_documents(outputs, run),
        stages=[(n, o.meta.get("kind", _kind(recipe, n)), o.count) for n, o in outputs.items()],
        samples=dict(sorted(used.kinds.items())),
        writers=dict(sorted(used.writers.items())),
        settings=dict(recipe["stages"][entry_of(stage)]),
        metrics=manifest.metadata.get("metrics", {}),
        exams=_exams(outputs),
        hashes={"base": f"{name} sha256 {base['sha256']}", "checkpoint manifest sha256": manifest.sha256},
        proof=proof,
        loading=loading,
        form=form,
    )


def _base(path: str) -> tuple[str, str, str]:
    """Name for people, name at a hub, and licence, as far as they are known. A path of this machine is none of them."""
    entry = catalogue.CATALOGUE.get(path)
    if entry is not None:
        return entry.name, entry.hub, entry.licence
    if path.startswith(PREFIX):
        return path, path.removeprefix(PREFIX).partition("@")[0], ""
    return Path(path).name, "", ""


def _run(folder: RunFolder, run: Mapping[str, Any]) -> dict[str, str]:
    last = run["attempts"][-1]
    told = {"run": folder.path.name, "recipe": run["recipe"], "seed": run["seed"], "gristmill": last["gristmill"]}
    packages = ", ".join(f"{name} {version}" for name, version in last["packages"].items())
    return {**{name: str(value) for name, value in told.items()}, "packages": packages}


def _kind(recipe: Mapping[str, Any], node: str) -> str:
    entry, _, part = node.partition(".")
    return f"{recipe['stages'][entry]['kind']}{f'/{part}' if part else ''}"


@dataclass
class _Used:
    """What was trained on, counted."""

    languages: set[str] = field(default_factory=set)
    kinds: Counter[str] = field(default_factory=Counter)
    writers: Counter[tuple[str, str]] = field(default_factory=Counter)
    version: str = ""  # of the data set, what was held out included


def _used(given: list[Output]) -> _Used:
    """What the stages before gave, less what was held out: read one by one, however many there are; what came by two
    ways counts once."""
    used = _Used()
    said: dict[str, Said] = {}
    for sample in (sample for output in given for sample in output.only(Sample)):
        if sample.id in said:
            continue
        said[sample.id] = said_of(sample)
        if sample.marks.get("split", "train") != "train":
            continue
        used.languages.add(sample.language)
        used.kinds[f"{sample.form}/{sample.kind}"] += 1
        if sample.origin is not None:
            used.writers[sample.origin.prompt or sample.origin.stage, sample.origin.model or "no model"] += 1
    used.version = version_of(said.values())
    return used


def _documents(outputs: Mapping[str, Output], run: Mapping[str, Any]) -> dict[str, str]:
    files = {file.path: file.sha256 for output in outputs.values() for file in output.only(File)}
    return dict(sorted((files or dict(run["inputs"])).items()))


def _exams(outputs: Mapping[str, Output]) -> dict[str, list[Arm]]:
    found: dict[str, list[Arm]] = {}
    for name, output in outputs.items():
        for report in output.only(Report):
            data: Any = report.data
            if isinstance(data.get("arms"), dict):
                arms = [(arm, data["arms"][arm]) for arm in data.get("order", data["arms"])]
                found[name] = [
                    Arm(arm, a["right"], a["n"], a["accuracy"], a["low"], a["high"])
                    for arm, a in arms
                    if {"right", "n", "accuracy", "low", "high"} <= a.keys()
                ]
    return found
