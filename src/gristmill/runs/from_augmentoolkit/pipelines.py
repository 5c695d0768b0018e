"""Each pipeline as the models and stages of a recipe. What a pipeline made in one go (variations of facts, questions of
six kinds, talks with retrieval, …) are stages here, beside each other or in a row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gristmill.runs.from_augmentoolkit.composition import everything
from gristmill.runs.from_augmentoolkit.config import Config
from gristmill.runs.from_augmentoolkit.parts import Parts, Stages, chunks, documents, folders, judged, model
from gristmill.runs.from_augmentoolkit.pieces import GATES, WAYS, corrected, finished, recalled, retrieved, varied
from gristmill.runs.from_augmentoolkit.sorting import classifier
from gristmill.runs.from_augmentoolkit.story import roleplay


def variations(config: Config, project: Path) -> Parts:
    """repvar-pipeline."""
    models = {"writer": model(config, "writer", "large")}
    stages = documents(config, project, default=4000)
    stages |= judged(config, models)
    return models, stages | varied(config, list(stages)[-1], count="variation_generator_count")


def recall(config: Config, project: Path) -> Parts:
    """recall-multi-source-pipeline."""
    models = {"writer": model(config, "writer", "large")}
    stages = documents(config, project, default=3000)
    ways, anchors = [_way(config)], None
    if subset := stages.pop("subset", None):  # of those that are asked about: what goes with them is looked for in all
        anchors = subset["chunks"]
        for name in ("use_subset", "subset_size"):
            config.take(name, "stages.questions.anchors")
    stages |= judged(config, models)
    stages |= recalled(config, ways, list(stages)[-1], anchors=anchors)
    return models, stages | finished(config, "final_assistant_prompts_no_rag")


def _way(config: Config) -> str:
    """The folder of prompts says how to ask."""
    prompts = str(config.take("prompts", "stages.questions.ways") or "")
    folder = Path(prompts).name.removesuffix("_local")
    if prompts and folder not in WAYS:
        config.refuse("prompts", f"no way of asking is called {folder}: questions are open")
    return WAYS.get(folder, "open")


def questions(config: Config, project: Path) -> Parts:
    """factual-gen-indiv-pipeline: the one that validates."""
    models = {"writer": model(config, "writer", "large")}
    stages = documents(config, project, default=3000)
    stages |= judged(config, models)
    config.leave(
        "prompts", "plain questions are asked here; other ways are those of generate.recall: recipes/recall.yaml"
    )
    stages["questions"] = {"kind": "generate.qa", "model": "writer", "per_chunk": 4}
    if not config.take("skip_repair_qa_tuples", "stages.repaired", False):
        stages["repaired"] = {"kind": "generate.repair", "model": "writer"}
    stages |= {**GATES, "ground": {"kind": "curate.ground"}}
    switches = {"question": "sound", "answer_relevancy": "relevant", "answer_accuracy": "accurate"}
    checks = [c for name, c in switches.items() if not config.take(f"skip_{name}_check", "stages.judged.checks", False)]
    votes = config.take("double_check_counter", "stages.judged.votes", 1)
    if checks:
        stages["judged"] = {"kind": "curate.judge", "model": "writer", "checks": checks, "votes": votes, "share": 0.5}
    tone = config.take("conversation_instructions", "stages.talks.tones")
    if config.take("skip_conversation_generation", "stages.talks", False):
        return models, stages | finished(config, "final_assistant_prompts_no_rag")
    tones = {"tones": [" ".join(str(tone).split())]} if tone else {}
    stages["talks"] = {"kind": "generate.weave", "model": "writer", **tones}
    config.leave("items_per_conversation", "the conversations are written: stages.talks.turns")
    return models, stages | finished(config, "final_assistant_prompts_no_rag", turns=None)


def retrieval(config: Config, project: Path) -> Parts:
    """rag-data-pipeline."""
    models = {"writer": model(config, "writer", "large")}
    stages = documents(config, project, default=4000)
    stages |= judged(config, models)
    stages["questions"] = {"kind": "generate.qa", "model": "writer"}
    stages |= {**GATES, "ground": {"kind": "curate.ground"}}
    return models, stages | retrieved(config, ["ground", "chunks"])


def corrections(config: Config, project: Path) -> Parts:
    """correction-pipeline."""
    models = {"writer": model(config, "writer", "large")}
    stages = documents(config, project, default=3000)
    stages |= judged(config, models)
    stages["questions"] = {"kind": "generate.qa", "model": "writer"}
    stages |= {**GATES, "ground": {"kind": "curate.ground"}}
    return models, stages | corrected(["ground"])


def thoughts(config: Config, project: Path) -> Parts:
    """generic-data-rephrase-pipeline."""
    models = {"writer": model(config, "writer", "large")}
    chats: dict[str, Any] = {"kind": "ingest.samples", "paths": folders(config, project), "format": "sharegpt"}
    if config.take("use_subset", "stages.chats.limit") and (limit := config.take("subset_size", "stages.chats.limit")):
        chats["limit"] = limit
    return models, {
        "chats": chats,
        "thoughts": {"kind": "generate.thoughts", "model": "writer"},
        "dataset": {"kind": "curate.export", "formats": ["sharegpt", "openai"]},
    }


def cleaning(config: Config, project: Path) -> Parts:
    """pdf-clean-convert-pipeline: what follows it goes behind `clean`."""
    models = {"writer": model(config, "writer", "small")}
    stages: Stages = {"read": {"kind": "ingest.read", "paths": folders(config, project)}}
    stages["clean"] = {"kind": "generate.clean", "model": "writer"}
    config.leave("chunk_size", "pages are corrected block by block: stages.clean.longest")
    stages |= chunks(config, default=400, size="")
    return models, stages | {
        "texts": {"kind": "generate.passage", "context": False},
        "dataset": {"kind": "curate.export", "formats": ["text"]},
    }


BUILDERS: dict[str, Callable[[Config, Path], Parts]] = {
    "factual-datagen-pipeline": everything,
    "repvar-pipeline": variations,
    "recall-multi-source-pipeline": recall,
    "factual-gen-indiv-pipeline": questions,
    "rag-data-pipeline": retrieval,
    "correction-pipeline": corrections,
    "generic-data-rephrase-pipeline": thoughts,
    "pdf-clean-convert-pipeline": cleaning,
    "classifier-creator-pipeline": classifier,
    "rptoolkit-pipeline": roleplay,
}

ELSEWHERE = {
    "meta-datagen-pipeline": "Its harvest is a stage of any recipe: recipes/writer.yaml shows generate.harvest.",
    "grpo-rl-pipeline": "Reinforcement learning is not there yet; preference data is: recipes/ultrafeedback.yaml.",
    "example-pipeline": "Its place is `generate.ask`: recipes/rows.yaml, or `gristmill init NAME --plugin`.",
    "debug-pipeline": "Its place is `gristmill doctor`.",
    "basic-server": "Its place is `gristmill serve RUN` and `gristmill chat RUN`.",
    "rag-server": "A server with retrieval is not there yet; `gristmill serve RUN` serves the model.",
    "discord-server": "A Discord bot is not there; `gristmill serve RUN` has an OpenAI-compatible address for one.",
}
"""Pipelines that are no recipe: where their work is done here."""
