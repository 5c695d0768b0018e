"""Which texts are labelled next.

Whether a text is kept for the test is drawn from the seed and the text alone, so that the test is a fair sample of all
texts, whichever the others are chosen by: a classifier that agrees on it agrees on the texts that nobody has looked at.
Of records with the same words one is labelled: what is tested was then never trained on under another id.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from gristmill.core.errors import InputError
from gristmill.core.records import Draft, Record, Sample, digest_of
from gristmill.core.stage import PassContext, PassResult
from gristmill.generate.label.stages import LabelConfig
from gristmill.generate.label.texts import ASKED, GUESS, LABEL, RULES, SOURCE, Text, cut, texts


def run(config: LabelConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    found = list(records)
    rules = [r for r in found if isinstance(r, Draft) and r.kind == RULES]
    if len(rules) != 1:
        hint = "Let it need one stage of generate.rules."
        raise InputError(f"stage {ctx.stage} takes the rules of one description, and has {len(rules)}", hint)
    labels = [r for r in found if isinstance(r, Sample) and r.kind == LABEL]
    guesses = {str(r.marks[SOURCE]): r for r in found if isinstance(r, Sample) and r.kind == GUESS}  # the latest counts
    done = {str(sample.marks[SOURCE]) for sample in labels}
    every = list(texts(found, config.column))
    several = _several(every)
    ctx.count(**{"texts with the words of another": float(len(every) - len(several))})
    left = sorted((t for t in several if t.record.id not in done), key=lambda t: _rank(ctx.seed, t))
    tests = [text for text in left if _is_test(config, ctx.seed, text)][: config.test]
    rest = [text for text in left if not _is_test(config, ctx.seed, text)]
    for split, chosen in (("train", _picked(config, rest, guesses, labels)), ("test", tests)):
        for text in chosen:
            ctx.count(**{"texts cut": float(len(text.text) > config.characters)})
            data = {**rules[0].data, "text": cut(text.text, config.characters), "split": split, SOURCE: text.record.id}
            data |= {"language": text.language, "quotes": [quote.model_dump(mode="json") for quote in text.quotes]}
            yield Draft(kind=ASKED, data=data, parents=(text.record.id, rules[0].id))


def _several(every: list[Text]) -> list[Text]:
    """Each text once: of the record whose id comes first, so that the order of records decides nothing."""
    firsts: dict[str, Text] = {}
    for text in sorted(every, key=lambda text: text.record.id):
        firsts.setdefault(" ".join(text.text.casefold().split()), text)
    return list(firsts.values())


def _rank(seed: int, text: Text) -> str:
    return digest_of([seed, text.record.id])


def _is_test(config: LabelConfig, seed: int, text: Text) -> bool:
    """So large a share of the texts is for the test as of the labels."""
    return int(digest_of([seed, "test", text.record.id])[:8], 16) / 16**8 < config.test / (config.test + config.count)


def _picked(config: LabelConfig, left: list[Text], guesses: dict[str, Sample], labels: list[Sample]) -> list[Text]:
    """The texts to train on. What nobody has guessed of comes last, in the order of the seed."""
    if config.pick == "random" or not guesses:
        return left[: config.count]
    known = [text for text in left if text.record.id in guesses]
    unknown = [text for text in left if text.record.id not in guesses]
    if config.pick == "uncertain":
        known = sorted(known, key=lambda text: float(str(guesses[text.record.id].marks["margin"])))
    else:
        held = Counter(sample.label for sample in labels if sample.marks.get("split") == "train")
        known = list(_in_turn(known, guesses, held))
    return [*known, *unknown][: config.count]


def _in_turn(left: list[Text], guesses: dict[str, Sample], held: Counter[str]) -> Iterator[Text]:
    """One after another of the class that has the fewest labels, this round's own guesses counted."""
    by_class: defaultdict[str, list[Text]] = defaultdict(list)
    for text in reversed(left):
        by_class[guesses[text.record.id].label].append(text)
    while by_class:
        label = min(by_class, key=lambda label: (held[label], label))
        held[label] += 1
        yield by_class[label].pop()
        if not by_class[label]:
            del by_class[label]
