"""How far a classifier and whoever labelled its data agree, on texts that it was not trained on.

kappa = (a - c) / (1 - c)      a: share of texts on which they agree, c: of what chance alone would give
                               (Cohen 1960); 1 where both say the same of everything, 0 at chance
macro-F1                       mean over the classes that either gave of 2 both / (labelled + guessed)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pydantic import JsonValue

from gristmill.core.errors import InputError
from gristmill.core.intervals import wilson
from gristmill.core.records import Record, Report, Sample
from gristmill.core.stage import PassContext, PassResult
from gristmill.evaluate.stages import AgreementConfig

SOURCE = "source"
"""Mark of a label and of a guess: the record whose text both are about."""


def run(config: AgreementConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:  # noqa: ARG001
    """A guess is a labelled sample with a `confidence`; of several about one text the last counts."""
    labels: dict[str, Sample] = {}
    guesses: dict[str, str] = {}
    for record in records:
        if not isinstance(record, Sample) or record.form != "labelled" or SOURCE not in record.marks:
            continue
        if "confidence" in record.marks:
            guesses[str(record.marks[SOURCE])] = record.label
        elif record.marks.get("split") == "test":
            labels[str(record.marks[SOURCE])] = record
    compared = [(label, guesses[source]) for source, label in labels.items() if source in guesses]
    if not compared:
        raise InputError(
            f"stage {ctx.stage} has no label of a test text to compare a guess with",
            f"It has {len(labels)} test labels and {len(guesses)} guesses: `generate.label` gives them with test > 0.",
        )
    data = agreement([(label.label, guess) for label, guess in compared])
    yield Report(
        title="Agreement of classifier and labels", data=data, parents=tuple(label.id for label, _ in compared)
    )


def agreement(pairs: list[tuple[str, str]]) -> dict[str, JsonValue]:
    """(label, guess) of each text, as the report's plain data."""
    n, both = len(pairs), Counter(label for label, guess in pairs if label == guess)
    labelled, guessed = Counter(label for label, _ in pairs), Counter(guess for _, guess in pairs)
    right = both.total()
    low, high = wilson(right, n)
    chance = sum(labelled[name] * guessed[name] for name in labelled) / n**2
    f1 = {name: 2 * both[name] / (labelled[name] + guessed[name]) for name in sorted({*labelled, *guessed})}
    confused = Counter(pair for pair in pairs if pair[0] != pair[1])
    return {
        "n": n,
        "right": right,
        "agreement": right / n,
        "low": low,
        "high": high,
        "kappa": (right / n - chance) / (1 - chance) if chance < 1 else None,
        "macro_f1": sum(f1.values()) / len(f1),
        "f1": {**f1},
        "labelled": {**labelled},
        "guessed": {**guessed},
        "confused": {f"{label} for {guess}": times for (label, guess), times in sorted(confused.items())},
    }
