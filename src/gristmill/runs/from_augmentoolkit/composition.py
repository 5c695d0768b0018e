"""The flagship: documents to all data of continued pretraining and fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gristmill.runs.from_augmentoolkit.config import Config
from gristmill.runs.from_augmentoolkit.parts import Parts, Stages, added, chunks, judged, located, model
from gristmill.runs.from_augmentoolkit.pieces import WAYS, corrected, finished, recalled, retrieved, varied

INNER = {
    "default_prompts": "prompts are files of each kind (`prompts:` of a stage)",
    "single_turn": "a follow-up is a talk, every other way one question",
    "multi_source": "every question has its passages at hand: stages.questions.sources",
    "not_in_rag_data": "the talks with retrieval have questions of their own: stages.short",
}
"""What a way of asking says of itself, and where that is settled here."""

TURNS = "combine_sharegpt_target_pairs"


def everything(config: Config, project: Path) -> Parts:
    """factual-datagen-pipeline: documents to all data of continued pretraining and fine-tuning."""
    models = _models(config)
    given = config.take("input_dirs", "stages.read.paths", [])
    given = given if isinstance(given, list) else [given]
    first, *others = [each if isinstance(each, dict) else {"path": each} for each in given] or [{}]
    for at, other in enumerate(others, 1):
        for name, value in other.items():
            if name != "path" and value != first.get(name):
                config.left[f"path.input_dirs[{at}].{name}"] = "one setting for all folders here: the first folder's"
    for name, value in first.items():  # a folder's settings are a name space of their own
        place = f"path.input_dirs[0].{name}"
        if config.places.setdefault(name, place) == place:
            config.values[name] = value
        else:
            config.left[place] = f"{config.places[name]} says it for all folders"
    config.carried["path.input_dirs[0].path"] = "stages.read.paths"
    paths = [located(config, project, each.get("path")) for each in (first, *others)]
    stages: Stages = {"read": {"kind": "ingest.read", "paths": paths}}
    if "cleaner" in models:
        stages["mended"] = {"kind": "generate.clean", "model": "cleaner"}
    stages |= chunks(config, default=3000, size="factual_chunk_size")
    stages |= judged(config, models, prefix="factual_", skip="rag_skip_filter_chunks")
    source = list(stages)[-1]
    stages |= varied(config, source, count="variation_generation_counts", inferred=True, writer=_as(models, "varier"))
    ways = _ways(config)
    times = int(config.number("number_of_factual_sft_generations_to_do", "stages.questions.per_chunk", 1))
    subset = config.take("factual_gen_use_subset", "stages.questions.anchors", False)
    anchors = subset and config.take("factual_gen_subset_size_per_way", "stages.questions.anchors")
    stages |= recalled(config, ways, source, times=times, anchors=anchors)
    if config.take("generic_thought_process_on_domain_data", "stages.thought", False):
        stages["thought"] = {"kind": "generate.thoughts", "model": _as(models, "thinker")}
    turns = "items_per_conversation"
    if TURNS in config.values:
        config.leave(turns, f"{TURNS} says how many questions are joined")
        turns = TURNS
    last = finished(config, "final_assistant_prompts_no_rag", turns=turns)
    if "system" in last:
        last["system"] |= dropped(config)
    stages |= last
    stages["short"] = {"kind": "generate.qa", "model": _as(models, "rag_writer"), "needs": [source]}
    stages |= {
        "tidy": {"kind": "curate.filter"},
        "ground": {"kind": "curate.ground"},
        **retrieved(config, ["ground", "chunks"], writer=_as(models, "rag_writer")),
        **corrected(["ground"], writer=_as(models, "corrector")),
    }
    return models, stages


def _ways(config: Config) -> list[str]:
    """The ways of asking; what each says besides its prompts is told apart."""
    listed = config.take("factual_sft", "stages.questions.ways", {})
    listed = listed if isinstance(listed, dict) else dict.fromkeys(config.texts("factual_sft", "stages.questions.ways"))
    for name, settings in listed.items():
        if name not in WAYS:
            config.left[f"factual_sft.{name}"] = f"a way of asking is one of {', '.join(WAYS)}"
        for option in settings if isinstance(settings, dict) else ():
            why = INNER.get(option, "no model judges these questions; curate.filter and curate.dedup do")
            config.left |= {f"factual_sft.{name}.{option}": why} if option != "prompts" else {}
    return [WAYS[name] for name in listed if name in WAYS] or ["open"]


def _models(config: Config) -> dict[str, Any]:
    """One role for each section that names a model of its own; one that is another's twin is that other."""
    sections = {"writer": "factual_", "varier": "representation_variation_", "rag_writer": "rag_"}
    sections |= {"corrector": "correction_", "thinker": "transform_generic_data_"}
    models: dict[str, Any] = {}
    for role, prefix in sections.items():
        spec = model(config, role, "large", prefix=prefix)
        if role == "writer" or f"{prefix}large_model" in config.values:
            added(config, models, role, spec)
    if config.take("do_not_use_llm_for_pdf_processing", "stages.mended", False):
        for name in [name for name in config.values if name.startswith("pdf_cleaning_")]:
            config.leave(name, "do_not_use_llm_for_pdf_processing is on")
    elif "pdf_cleaning_small_model" in config.values:
        models["cleaner"] = model(config, "cleaner", "small", prefix="pdf_cleaning_")
    return models


def _as(models: dict[str, Any], role: str) -> str:
    return role if role in models else "writer"


def dropped(config: Config) -> dict[str, Any]:
    """Shares of chats that lose their system message, or their thoughts."""
    share = config.take("remove_system_prompt_ratio", "stages.system.drop", 0.2)
    thoughts = config.number("remove_thought_process_ratio", "stages.system.drop_thoughts", 0)
    words = config.take("remove_thought_process_prompt", "stages.system.at_once")
    if thoughts and not words:
        why = "remove_thought_process_prompt says nothing, and thoughts go only with an instruction"
        config.refuse("remove_thought_process_ratio", why)
    return {"drop": share} | ({"drop_thoughts": thoughts, "at_once": words} if thoughts and words else {})
