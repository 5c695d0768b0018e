"""RPToolkit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gristmill.runs.from_augmentoolkit.config import Config
from gristmill.runs.from_augmentoolkit.parts import Parts, documents, model


def roleplay(config: Config, project: Path) -> Parts:
    """rptoolkit-pipeline."""
    models = {"writer": model(config, "writer", "small"), "teller": model(config, "teller", "large")}
    some: dict[str, Any] = {"type": "array", "items": {"maxLength": 60}, "maxItems": 6}
    emotion: Any = {"maxLength": 60}
    if config.take("pick_emotion", "stages.features.fields.emotion", False):
        config.leave("emotions", "pick_emotion is on: the model finds its own")
    elif listed := config.texts("emotions", "stages.features.fields.emotion"):
        emotion = listed
    archetype: Any = {"maxLength": 300}
    if config.take("generate_archetype", "stages.features.fields.archetype", True):
        config.leave("archetypes", "generate_archetype is on: the model finds its own")
    elif listed := config.texts("archetypes", "stages.features.fields.archetype"):
        archetype = [each.partition(":")[0] for each in listed]
    headings = config.texts("to_include_features", "stages.features.fields")
    named = {heading.lower().replace(" ", "_"): some for heading in headings}
    line, text = {"maxLength": 80}, {"maxLength": 400}
    card: dict[str, Any] = {"name": line, "age": line, "occupation": line, "personality": text, "appearance": text}
    card |= {"backstory": text, "likes": some, "dislikes": some, "scene": text}
    shown = {"source": bool(config.take("include_chunk_in_prompt", "stages.stories.source", True))}
    stages = documents(config, project, default=2000)
    stages |= {
        "features": {
            "kind": "generate.ask",
            "model": "writer",
            "prompt": "A piece of a story:\n{{text}}\n\nName its emotion and archetype, and what else is asked for. "
            "Use no proper nouns.",
            "fields": {"emotion": emotion, "archetype": archetype, **named},
            "max_tokens": 1500,
        },
        "card": {
            "kind": "generate.ask",
            "model": "writer",
            "prompt": "A piece of a story:\n{{text}}\n\nEmotion: {{emotion}}\nArchetype: {{archetype}}\n\n"
            "Draw one character of it fully, and the scene in which a second person, whom you leave open, meets them.",
            "fields": card,
            "max_tokens": 2000,
        },
        "bible": {"kind": "generate.bible"},
        "stories": {"kind": "generate.story", "model": "teller", **shown},
        "filter": {"kind": "curate.filter", "question_length": {"min_words": 1, "max_words": 200}},
        "rating": {
            "kind": "curate.judge",
            "model": "teller",
            "checks": ["quality"],
            "drop": False,
            "rubrics": {
                "quality": {
                    "question": "How good is this role play, in its sense, its character and its writing?",
                    "choices": ["awful", "poor", "good", "incredible"],
                    "passes": ["good", "incredible"],
                }
            },
        },
        "full_stories": _tier("full_stories"),
        "good_and_above": _tier("good_and_above", "good", "incredible"),
        "incredible": _tier("incredible", "incredible"),
    }
    return models, stages


def _tier(name: str, *choices: str) -> dict[str, Any]:
    """A tier of which there is none ends no run."""
    stage: dict[str, Any] = {"kind": "curate.export", "name": name, "formats": ["sharegpt", "openai"]}
    return stage | {"needs": ["rating"]} | ({"where": {"judge_quality": [*choices]}} if choices else {})
