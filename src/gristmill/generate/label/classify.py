"""What a trained classifier takes each text for: the class with the highest probability, and by how much it leads."""

from __future__ import annotations

from collections.abc import Iterable

from gristmill.core.errors import Cancelled, InputError
from gristmill.core.records import Origin, Record, Sample
from gristmill.core.stage import Dropped, PassContext, PassResult
from gristmill.generate.label.stages import ClassifyConfig
from gristmill.generate.label.texts import GUESS, SOURCE, texts


def run(config: ClassifyConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    from gristmill.models.classifier import Classifier

    found = list(texts(records, config.column))
    if not found:
        raise InputError(f"stage {ctx.stage} has no texts", f"Rows need a column `{config.column}`: set `column`.")
    weights = ctx.weights(config.model)
    classifier = Classifier(weights, context=config.context)
    origin = Origin(stage=ctx.stage, model=f"weights {weights.sha256}")
    for number, text in enumerate(found):
        if ctx.stopping():
            raise Cancelled("stopped among the guesses", "Run the same command again to go on.")
        shares = classifier.probabilities(text.text)
        first, second = sorted(shares.values(), reverse=True)[:2]
        label = next(name for name, share in shares.items() if share == first)
        rounded = {name: round(share, 4) for name, share in shares.items()}
        sample = Sample(
            form="labelled",
            kind=GUESS,
            text=text.text,
            label=label,
            quotes=text.quotes,
            language=text.language,
            parents=(text.record.id,),
            origin=origin,
            marks={
                SOURCE: text.record.id,
                "confidence": round(first, 4),
                "margin": round(first - second, 4),
                "classes": rounded,
            },
        )
        ctx.progress(number + 1, len(found))
        if config.below is not None and first < config.below:
            yield Dropped(sample, "not sure enough", f"{label}: {first:.0%}")
        else:
            yield sample
