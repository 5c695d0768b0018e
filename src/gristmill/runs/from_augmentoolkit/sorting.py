"""The classifier bootstrapper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gristmill.runs.from_augmentoolkit.config import Config, plain
from gristmill.runs.from_augmentoolkit.parts import REPEAT, Parts, documents, model
from gristmill.runs.recipe import PLACEHOLDER

LOWER_END = "repeat.until: for the lower end of the agreement's interval, which takes more than this share of agreement"


def classifier(config: Config, project: Path) -> Parts:
    """classifier-creator-pipeline."""
    models: dict[str, Any] = {
        "writer": model(config, "writer", "large"),
        "labeller": model(config, "labeller", "small"),
        "student": {"provider": "local", "model": plain(config.take("model_path", "models.student.model"))},
        "sorter": {"from": "tune"},
    }
    if str(models["student"]["model"]).startswith("distilbert"):
        config.refuse("model_path", "DistilBERT is no causal model: the embedded one is trained instead")
        models["student"]["model"] = "smollm2-135m-instruct"
    classes = config.texts("classes", "stages.rules.classes")
    stages = documents(config, project, default=900)
    texts = list(stages)[-1]
    rules = plain(config.take("desc", "stages.rules.description")) or PLACEHOLDER
    wanted = config.take("required_accuracy", LOWER_END, 0.9)
    count = config.take("train_set_size", "stages.label.count", 40)
    if config.values.get("train_set_increment") != count:
        config.leave("train_set_increment", "every round labels as many as the first: stages.label.count")
    else:
        config.take("train_set_increment", "stages.label.count: the same in every round")
    label = {"kind": "generate.label", "model": "labeller", "count": count}
    label["test"] = config.take("test_set_size", "stages.label.test", 10)
    stages |= {
        "rules": {"kind": "generate.rules", "model": "writer", "description": rules, "classes": classes},
        "label": label | {"needs": [texts, "rules", "label.before", "guess.before"]},
        "tune": {"kind": "train.classify", "model": "student", "needs": ["label.all"], "labels": classes, "epochs": 3},
        "guess": {"kind": "generate.classify", "model": "sorter", "needs": [texts]},
        "agree": {"kind": "evaluate.agreement", "needs": ["label.all", "guess"]},
    }
    if config.take("predict_on_whole_set_at_the_end", "stages.sorted", False):
        stages["sorted"] = {"kind": "generate.classify", "model": "sorter", "needs": [texts]}
        stages["dataset"] = {"kind": "curate.export", "formats": ["labelled"]}
    models[REPEAT] = {
        "stages": ["label", "tune", "guess", "agree"],
        "times": int(config.number("max_iters", "repeat.times", 5)) + 1,
        "until": f"agree.low >= {wanted}",
    }
    return models, stages
