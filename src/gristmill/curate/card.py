"""The dataset card: what is in the export, where it came from, how it was made. README.md with YAML front matter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import yaml

from gristmill.core.records import Origin, Sample
from gristmill.core.versions import version


@dataclass(frozen=True)
class Refused:
    """A sample that a format cannot say."""

    id: str
    format: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Provenance:
    """Source files by path with their sha256 (empty where it is not known), and the origins of what was written."""

    sources: Mapping[str, str] = field(default_factory=dict)
    origins: tuple[Origin, ...] = ()


@dataclass(frozen=True)
class CardFacts:
    """All that the card says."""

    title: str
    license: str
    rows: Mapping[str, Mapping[str, int]]  # format -> split -> rows
    files: Mapping[str, Mapping[str, str]]  # format -> split -> path that load_dataset opens
    samples: Sequence[Sample]
    refused: Sequence[Refused]
    provenance: Provenance


_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def _front(facts: CardFacts) -> str:
    most = max(sum(splits.values()) for splits in facts.rows.values())
    front: dict[str, object] = {
        "pretty_name": facts.title,
        "language": sorted({sample.language for sample in facts.samples}),
        "size_categories": [next((name for limit, name in _SIZES if most < limit), "n>1M")],
        "configs": [
            {"config_name": name, "data_files": [{"split": split, "path": path} for split, path in splits.items()]}
            for name, splits in facts.files.items()
        ],
    }
    if facts.license:
        front["license"] = facts.license
    return yaml.safe_dump(front, sort_keys=False, allow_unicode=True)


def _cell(value: object) -> str:
    return str(value).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(value) for value in line)} |" for line in lines)


def _section(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    return f"## {title}\n\n{_table(head, rows)}\n" if rows else ""


def _counted(values: Iterable[tuple[str, ...]]) -> list[tuple[object, ...]]:
    return [(*value, count) for value, count in sorted(Counter(values).items())]


def write_card(facts: CardFacts) -> str:
    made = [(origin.stage, origin.prompt or "none", origin.model or "none") for origin in facts.provenance.origins]
    sizes = [(name, split, rows) for name, splits in facts.rows.items() for split, rows in splits.items()]
    licence = facts.license or "Not stated. It follows from the sources: state it before you share this."
    sections = [
        f"---\n{_front(facts)}---\n\n# {facts.title}\n\nTraining data that Gristmill made from the sources below.\n",
        f"## Version\n\n`{version(facts.samples)}`, a hash of what the samples say and of their splits.\n"
        "`gristmill compare` tells what came, went and changed between the data of two runs, and why.\n",
        _section("Splits", ("format", "split", "rows"), sizes),
        _section(
            "Kinds",
            ("kind", "language", "samples"),
            _counted((sample.kind, sample.language) for sample in facts.samples),
        ),
        _section(
            "Sources", ("file", "sha256"), [(p, h or "not known") for p, h in sorted(facts.provenance.sources.items())]
        ),
        _section("Made by", ("stage", "prompt", "model", "samples"), _counted(made)),
        _section(
            "Left out",
            ("format", "reason", "samples"),
            _counted((refused.format, refused.reason) for refused in facts.refused),
        ),
        f"## Licence\n\n{licence}\n",
    ]
    return "\n".join(section for section in sections if section)
