"""What a sound recipe had better do all the same, in words. It stops nothing: a person may know better."""

from __future__ import annotations

from collections.abc import Iterator

from gristmill.core.records import Checkpoint, Sample
from gristmill.llm.spec import StageSpec
from gristmill.runs.plan import Node, Plan

APART = "curate.decontaminate"
GROUND, JUDGE, EXPORT = "curate.ground", "curate.judge", "curate.export"
HARVEST, PRIVATE = "generate.harvest", ("curate.pii", "curate.secrets")


def advice(plan: Plan) -> list[str]:
    return [*_taught_to_the_exam(plan), *_harvested_as_asked(plan), *_translated_unread(plan), *_last_files(plan)]


def _taught_to_the_exam(plan: Plan) -> Iterator[str]:
    """Models that are examined, and trained on samples that nobody compared with the exam."""
    said: set[str] = set()
    for exam in plan.nodes:
        if not exam.kind.startswith("evaluate."):
            continue
        trained = _trained(plan, exam)
        for node in plan.nodes:
            entry = node.entry.partition(".")[0]
            if entry not in trained or entry in said or not _learns(plan, node):
                continue
            if not any(before.kind == APART for before in _before(plan, node)):
                said.add(entry)
                yield (
                    f"{entry} trains on samples that nobody has compared with the questions of {exam.entry}: put "
                    f"`{{kind: {APART}}}` before it."
                )


def _harvested_as_asked(plan: Plan) -> Iterator[str]:
    """Prompts that are taken from the store as they were, though the records have been through a stage of privacy."""
    for harvest in [node for node in plan.nodes if node.kind == HARVEST]:
        before = {node.kind for node in _before(plan, harvest)}
        behind = {node.kind for node in plan.nodes if harvest in _before(plan, node)}
        for kind in PRIVATE:
            if kind in before - behind:
                yield (
                    f"{harvest.entry} takes prompts as they were asked, not as {kind} left the records: put "
                    f"`{{kind: {kind}}}` behind it."
                )


def _translated_unread(plan: Plan) -> Iterator[str]:
    """What is written in another language goes through a gate that can compare numbers alone, and past no judge."""
    for ground in [node for node in plan.nodes if node.kind == GROUND and node.round < 2]:
        near = [*_before(plan, ground), *(node for node in plan.nodes if ground in _before(plan, node))]
        if any(node.kind == JUDGE for node in near):
            continue
        for node in near:
            language = getattr(node.config, "language", None)
            if language and node.kind.startswith("generate.") and node in _before(plan, ground):
                yield (
                    f"{ground.entry} can compare numbers alone where {node.entry} writes {language} of documents in "
                    f"another language: ask a `{{kind: {JUDGE}}}` whether the source supports the sample."
                )


def _last_files(plan: Plan) -> Iterator[str]:
    for node in plan.nodes:
        if node.round == 1 and node.kind == EXPORT:
            yield f"{node.entry} writes its files anew in every round of `repeat`: put it behind the rounds."


def _trained(plan: Plan, exam: Node) -> set[str]:
    """The stages that trained a model of this one, and the models that those began with."""
    found: set[str] = set()
    roles = list(exam.roles)
    while roles:
        spec = plan.recipe.models.get(roles.pop())
        if isinstance(spec, StageSpec) and spec.from_ not in found:
            found.add(spec.from_)
            roles += [role for node in plan.nodes if node.entry == spec.from_ for role in node.roles]
    return found


def _learns(plan: Plan, node: Node) -> bool:
    return Checkpoint in node.stage.gives and any(Sample in plan.node(need).stage.gives for need in node.needs)


def _before(plan: Plan, node: Node) -> Iterator[Node]:
    """All that a node takes records from, directly or through others."""
    seen: set[str] = set()
    left = list(node.needs)
    while left:
        name = left.pop()
        if name not in seen:
            seen.add(name)
            yield (found := plan.node(name))
            left += found.needs
