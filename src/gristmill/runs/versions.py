"""Two versions of a data set: what came, what went, what changed, and why.

Samples are the same where they say the same, wherever their sources stand now. Why one is not there is followed back
from record to record, to the first that the other run dropped, never read, or made otherwise: by another prompt, model
or setting.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gristmill.core.records import canonical
from gristmill.runs.folder import RunFolder
from gristmill.runs.trail import Item, Trail, entry_of

SHOWN = 3
"""Samples told by name for each reason."""


@dataclass
class Changes:
    """Samples by reason."""

    came: dict[str, list[Item]] = field(default_factory=lambda: defaultdict(list))
    went: dict[str, list[Item]] = field(default_factory=lambda: defaultdict(list))
    changed: dict[str, list[Item]] = field(default_factory=lambda: defaultdict(list))
    same: int = 0

    def told(self) -> dict[str, Any]:
        lists = {"came": self.came, "went": self.went, "changed": self.changed}
        counts = {what: {why: len(items) for why, items in _largest(found)} for what, found in lists.items()}
        shown = [
            {"what": what, "why": why, "id": item.id, "said": item.words}
            for what, found in lists.items()
            for why, items in _largest(found)
            for item in items[:SHOWN]
        ]
        return {"same": self.same, **counts, "shown": shown}


def _largest(found: Mapping[str, list[Item]]) -> list[tuple[str, list[Item]]]:
    return sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))


def versions(folders: Sequence[RunFolder], names: Sequence[str]) -> list[dict[str, Any]]:
    """Each later run's data set beside the first's; of runs without samples nothing."""
    trails = [Trail(folder) for folder in folders]
    first = trails[0]
    return [
        {
            "run": name,
            "against": names[0],
            "stages": [", ".join(first.stages), ", ".join(trail.stages)],
            "version": [first.version, trail.version],
            "samples": [len(first.items), len(trail.items)],
            **changes(first, trail).told(),
        }
        for name, trail in zip(names[1:], trails[1:], strict=True)
        if first.stages or trail.stages
    ]


def changes(old: Trail, new: Trail) -> Changes:
    """From an older version to a newer one."""
    found = Changes()
    if old.digests == new.digests:
        found.same = len(new.items)
        return found
    went, came = _unmatched(old.items, new.items, found)
    left = {item.id: item for item in went}
    slots: dict[str, list[Item]] = defaultdict(list)
    for item in went:
        if item.slot:
            slots[item.slot].append(item)
    for item in came:
        was = _edited_from(item, left, new) or next((i for i in slots[item.slot] if i.id in left), None)
        if was is None:
            found.came[why_absent(item, of=new, here=old)].append(item)
            continue
        del left[was.id]
        found.changed[_why_changed(was, item, old, new)].append(item)
    for item in left.values():
        found.went[why_absent(item, of=old, here=new)].append(item)
    return found


def _unmatched(old: list[Item], new: list[Item], found: Changes) -> tuple[list[Item], list[Item]]:
    """What only one of both says. What both say is the same, or has moved to another split."""
    there: dict[str, list[Item]] = defaultdict(list)
    for item in old:
        there[item.said].append(item)
    came = []
    for item in new:
        if not there[item.said]:
            came.append(item)
            continue
        was = there[item.said].pop(0)
        if was.split == item.split:
            found.same += 1
        else:
            found.changed[f"moved from {was.split} to {item.split}"].append(item)
    return [item for items in there.values() for item in items], came


def _edited_from(item: Item, left: dict[str, Item], new: Trail) -> Item | None:
    """The sample of the older version that this one was made from."""
    ids = [item.id]
    for name in ids:
        if name in left and name != item.id:
            return left[name]
        made = new.made.get(name)
        ids += [parent for parent in made.parents if parent not in ids] if made else []
    return None


def _why_changed(was: Item, item: Item, old: Trail, new: Trail) -> str:
    made = new.made.get(item.id)
    if made and was.id in made.parents:
        return f"rewritten by {made.stage}"
    return f"answered otherwise: {why_absent(was, of=old, here=new)}"


def why_absent(item: Item, *, of: Trail, here: Trail) -> str:
    """Why a sample of one run is not in another's data set."""
    at = here.stages[0] if here.stages else ""
    before = here.before(entry_of(at)) if at else set()
    if reason := _dropped(item.id, here, before | {entry_of(at)}):
        return reason
    if item.id in here.made:
        return f"not taken by {at}"
    return _cause(item.id, of, here) or "not known"


def _dropped(name: str, here: Trail, stages: set[str]) -> str:
    reasons = here.dropped.get(name, {})
    return next((f"dropped by {stage}: {reason}" for stage, reason in reasons.items() if stage in stages), "")


def _cause(name: str, of: Trail, here: Trail) -> str:
    """Of a record that the other run has not: what kept it from being made there. Empty where it is there."""
    made = of.made.get(name)
    if made is None:
        return ""
    if name in of.files:
        path = of.files[name].path
        return f"source changed: {path}" if path in here.paths else f"source not there: {path}"
    for parent in made.parents:
        if parent not in here.made:
            if cause := _cause(parent, of, here):
                return cause
        elif reason := _dropped(parent, here, here.before(made.stage)):
            return f"its {of.made[parent].type} was {reason}" if parent in of.made else reason
    return next(_differs(made.stage, of, here), f"{made.stage} gave something else")


def _differs(stage: str, of: Trail, here: Trail) -> Iterator[str]:
    """What of a stage is not the same in both runs."""
    if stage not in here.recipe.stages:
        yield f"no stage {stage}"
        return
    theirs, ours = of.folder.manifest, here.folder.manifest
    prompts = [
        {k: v for k, v in m["prompts"].items() if entry_of(k.partition("/")[0]) == stage} for m in (theirs, ours)
    ]
    if prompts[0] != prompts[1]:
        yield f"prompt changed: {stage}"
    roles = {role for m in (theirs, ours) for s in m["stages"] if entry_of(s["name"]) == stage for role in s["roles"]}
    for role in sorted(roles):
        if theirs["models"].get(role) != ours["models"].get(role):
            yield f"model changed: {role}, of {stage}"
    settings = [t.recipe.stages[stage].model_dump(mode="json", exclude={"after"}) for t in (of, here)]
    keys = [
        key for key in settings[0] | settings[1] if canonical(settings[0].get(key)) != canonical(settings[1].get(key))
    ]
    if keys:
        yield f"set otherwise: {', '.join(f'{stage}.{key}' for key in keys)}"
    if of.recipe.seed != here.recipe.seed:
        yield "another seed"
    code = [m.get("made_with", {}).get(stage, {}).get("code") for m in (theirs, ours)]
    if code[0] != code[1]:
        yield f"code changed: {stage}"
