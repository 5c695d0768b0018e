"""What several pipelines make: variations of facts, questions that recall, talks with retrieval, corrections."""

from __future__ import annotations

from typing import Any

from gristmill.runs.from_augmentoolkit.config import Config, plain
from gristmill.runs.from_augmentoolkit.parts import Stages, context, filled, system, without_data
from gristmill.runs.recipe import PLACEHOLDER

WAYS = {
    "openended": "open",
    "vague": "vague",
    "negative": "false_premise",
    "hallucination": "unanswerable",
    "followup": "followup",
    "comparison": "comparison",
}
"""Its folders of prompts, as `generate.recall` calls these ways of asking."""

DOUBTFUL = ("false_premise", "unanswerable")
"""Ways whose questions hold, on purpose, what no source does: `curate.ground` is not for them."""

STYLES = ["question_answer", "xml", "json", "essay", "list", "logic", "causes", "thoughts"]
"""Its eight variation prompts, as `generate.rephrase` calls them."""

OPERATORS = {
    "allcaps": "upper",
    "lowercase": "lower",
    "serialkillercase": "alternating",
    "titlecase": "title",
    "sentencecase": "sentence",
    "snakecase": "snake",
    "kebabcase": "kebab",
    "camelcase": "camel",
    "pascalcase": "pascal",
    "randomcase": "random_case",
    "invertcase": "inverted",
    "keyboard_augmentation": "typos",
}
"""Its code variations, as `generate.perturb` calls them."""

GATES: Stages = {
    "filter": {"kind": "curate.filter", "question_kinds": []},
    "clean": {"kind": "curate.dedup"},
}
"""What every set of questions goes through here: form, leaked examples, duplicates."""


def varied(config: Config, source: str, *, count: str, inferred: bool | None = None, writer: str = "writer") -> Stages:
    draw = config.number(count, "stages.forms.draw: each of the ten styles once at most", 3)
    about = [config.text(name, "stages.forms.about") for name in ("dataset_context", "additional_dataset_context")]
    said = ": ".join(each for each in about if each and each != PLACEHOLDER) or None
    header = bool(config.take("include_context_in_dataset", "context of stages.passages, statements and forms", True))
    forms: dict[str, Any] = {"kind": "generate.rephrase", "model": writer, "styles": ["reordered", "reversed", *STYLES]}
    forms |= {"draw": min(int(draw), 10), "context": header, "needs": [source]} | ({"about": said} if said else {})
    stages: Stages = {
        "passages": {"kind": "generate.passage", "context": header, "needs": [source]},
        "facts": {"kind": "generate.facts", "model": writer, "needs": [source]},
    }
    told = ["facts"]
    if config.take("make_inferred_facts", "stages.inferred", False) or inferred:
        stages["inferred"] = {"kind": "generate.facts", "model": writer, "inferred": True, "needs": [source]}
        told.append("inferred")
    stages |= {
        "statements": {"kind": "generate.passage", "context": header, "needs": told},
        "forms": forms,
        "varied": {"kind": "curate.filter", "code": False, "needs": ["statements", "forms"]},
        "supported": {"kind": "curate.ground"},
        "corpus": {"kind": "curate.dedup", "needs": ["passages", "supported"]},
    }
    ways = _operators(config)
    if ways:
        stages["typos"] = {"kind": "generate.perturb", "ways": ways}
    needs = ["corpus", "typos"] if ways else ["corpus"]  # the stage of typos gives its variants alone
    stages["texts"] = {"kind": "curate.export", "name": "texts", "formats": ["text"], "needs": needs}
    return stages


def _operators(config: Config) -> list[str]:
    named = dict.fromkeys(config.texts("code_variation_functions", "stages.typos.ways"))
    for name in named.keys() - OPERATORS.keys():
        config.left[f"{config.places['code_variation_functions']}.{name}"] = "generate.perturb has no such way"
    return [OPERATORS[name] for name in named if name in OPERATORS]


def recalled(config: Config, ways: list[str], source: str, *, times: int = 1, anchors: Any = None) -> Stages:
    """Questions, in two stages where some of them say on purpose what no source holds, and their gates."""
    sure, doubtful = [way for way in ways if way not in DOUBTFUL], [way for way in ways if way in DOUBTFUL]
    asked: dict[str, Any] = {"kind": "generate.recall", "model": "writer", "ways": sure, "thoughts": True}
    if config.take("cite_sources_at_end", "stages.questions.cite", False):
        asked["cite"] = True
    asked |= ({"per_chunk": times} if times > 1 else {}) | ({"anchors": anchors} if anchors else {})
    asked["needs"] = [source]
    stages: Stages = {}
    last = []
    if sure:
        stages |= {"questions": asked, "grounded": {"kind": "curate.ground", "question": False}}
        last.append("grounded")
    if doubtful:
        last.append("doubtful" if sure else "questions")
        stages[last[-1]] = asked | {"ways": doubtful}
    if sure and doubtful:
        for place, to in config.carried.items():
            if to.startswith("stages.questions."):
                config.carried[place] = f"{to}, {to.replace('questions', 'doubtful', 1)}"
    return stages | GATES | {"filter": GATES["filter"] | {"needs": last}}


def finished(config: Config, prompts: str, *, turns: str | None = "items_per_conversation") -> Stages:
    """Conversations, system messages above them, files. `turns`: the name that says how many questions are joined."""
    stages: Stages = {}
    count = int(config.number(turns, "stages.talks.turns", 1)) if turns else 1
    if count > 1:
        stages["talks"] = {"kind": "curate.converse", "turns": count}
    if config.take("do_not_use_system_prompts", "stages.system", False):
        config.leave(prompts, "do_not_use_system_prompts is on")
    elif (found := system(config, prompts)) is not None:
        stages["system"] = found
    return stages | {"dataset": {"kind": "curate.export", "formats": ["openai", "sharegpt", "masked"]}}


def retrieved(config: Config, needs: list[str], *, writer: str = "writer") -> Stages:
    stage: dict[str, Any] = {"kind": "generate.rag", "model": writer, "needs": needs}
    stage["failed"] = config.take("rag_failure_percentage", "stages.rag.failed", 0.5)
    stage["passages"] = config.take("rag_max_chunks", "stages.rag.passages", 3)
    prompts = config.texts("final_assistant_prompts", "stages.rag.instruction: the first of them")
    if prompts and (words := without_data(filled(prompts[0]))):
        for name, text in (context(config, "stages.rag.instruction") if "{{context" in words else {}).items():
            words = words.replace("{{" + name + "}}", text)
        stage["instruction"] = plain(words) if PLACEHOLDER not in words else PLACEHOLDER
    return {
        "rag": stage,
        "groups": {
            "kind": "curate.converse",
            "turns": max(2, int(config.number("num_items_per_group", "stages.groups.turns", 3))),
            "learn": "each",
        },
        "rag_data": {"kind": "curate.export", "name": "rag", "formats": ["masked"]},
    }


def corrected(needs: list[str], *, writer: str = "writer") -> Stages:
    return {
        "corrections": {"kind": "generate.correction", "model": writer, "needs": needs},
        "sound": {"kind": "curate.ground", "question": False},
        "correction_data": {"kind": "curate.export", "name": "corrections", "formats": ["masked", "preference"]},
    }
