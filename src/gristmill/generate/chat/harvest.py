"""The prompts and answers that good records were made from, as training data for a smaller model that writes them.

A run has paid for thousands of judged examples of its own steps: which answers were of use is known by what came
through the gates. What was asked lies beside every answer in the store; nothing is asked again. What is held out from
training is held out here too, with every answer that it came of.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from gristmill.core.errors import InputError
from gristmill.core.records import Fact, Message, Origin, Quote, Record, Sample
from gristmill.core.stage import Dropped, PassContext, PassResult
from gristmill.generate.chat.stages import HarvestConfig

_AT_ONCE = 500  # origins whose answers are read from the store together

Call = dict[str, Any]
"""A stored answer: `request` as it was asked, `reply` as it came."""


@dataclass
class Made:
    """What came through of the records that the same answers made."""

    origin: Origin
    first: Record
    quotes: dict[str, tuple[Quote, ...]] = field(default_factory=dict)  # by record id


def run(config: HarvestConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    taught: list[Record] = []
    withheld: set[str] = set()
    for record in records:
        if record.marks.get("split", "train") == "train":
            taught.append(record)
        else:
            yield Dropped(record, "held out from training")
            above = (record, *ctx.ancestors(record, Sample))
            withheld.update(key for each in above if each.origin for key in each.origin.calls)
    verdicts = _verdicts(taught, ctx) if config.verdicts else []
    made = _made(config, taught, {each.origin.stage for each in verdicts}, ctx)
    taken = [each for each in made if len(each.quotes) >= config.least]
    if few := len(made) - len(taken):
        ctx.count(**{"answers of which too few records came through": few})
    taken += [each for each in verdicts if config.of is None or each.origin.stage in config.of]
    harvested: set[str] = set()
    for start in range(0, len(taken), _AT_ONCE):
        ctx.progress(start, len(taken))
        for sample in _samples(config, taken[start : start + _AT_ONCE], ctx, harvested):
            if withheld.isdisjoint(sample.origin.calls if sample.origin else ()):
                yield sample
            else:
                ctx.count(**{"answers of which a record is held out": 1})


def _made(config: HarvestConfig, records: Iterable[Record], judged: set[str], ctx: PassContext) -> list[Made]:
    """By the answers they were made from, in the order of their first record. What a record descends from was made for
    it, and came through with it."""
    found: dict[tuple[str, ...], Made] = {}
    stages = set(judged)
    for record in records:
        for each in (record, *ctx.ancestors(record, Record)):
            if each.origin is None or not each.origin.calls:
                continue
            stages.add(each.origin.stage)
            if config.of is None or each.origin.stage in config.of:
                made = found.setdefault(each.origin.calls, Made(each.origin, each))
                made.quotes[each.id] = _quotes(each)
    if unknown := {*(config.of or ()), *config.brief} - stages:
        raise InputError(
            f"no record that came this far was written by {', '.join(sorted(unknown))}",
            f"Correct `of` or `brief`: they were written by {', '.join(sorted(stages)) or 'no model'}.",
        )
    return list(found.values())


def _verdicts(records: Iterable[Record], ctx: PassContext) -> list[Made]:
    """The votes of judges that stand in the marks, but for those that were outvoted. Of a check that always came to
    the same choice none are taken: they would teach to choose it without looking."""
    found: dict[tuple[str, ...], Made] = {}
    chosen: defaultdict[str, set[Any]] = defaultdict(set)
    for record in records:
        judged: Any = record.marks.get("judge")
        for check, verdict in judged.items() if isinstance(judged, dict) else ():
            step = f"judge_{check}"
            decided = record.marks.get(step)
            chosen[step].add(decided)
            for vote in verdict["votes"]:
                if vote["call"] and vote["choice"] == decided:
                    calls = (str(vote["call"]),)
                    made = found.setdefault(calls, Made(Origin(stage=step, calls=calls), record))
                    made.quotes[record.id] = _quotes(record)
    taken = [each for each in found.values() if len(chosen[each.origin.stage]) > 1]
    if alike := len(found) - len(taken):
        ctx.count(**{"votes of a check that always chose the same": alike})
    return taken


def _quotes(record: Record) -> tuple[Quote, ...]:
    return record.quotes if isinstance(record, Sample) else (record.quote,) if isinstance(record, Fact) else ()


def _samples(config: HarvestConfig, made: Sequence[Made], ctx: PassContext, harvested: set[str]) -> Iterator[Sample]:
    keys = dict.fromkeys(key for each in made for key in each.origin.calls)
    stored = {call["key"]: call for call in ctx.calls(list(keys))}
    if gone := len(keys) - len(stored):
        ctx.count(**{"answers that the store no longer holds": gone})
    for each in made:
        calls = [stored.get(key) for key in each.origin.calls]
        pairs = list(accepted_of(calls))
        if not pairs and None not in calls:
            ctx.count(**{"answers without a prompt that can be taught": 1})
        for asked, accepted in pairs:
            if accepted["key"] not in harvested:
                harvested.add(accepted["key"])
                yield _sample(config, each, asked, accepted, ctx)


def accepted_of(calls: Sequence[Call | None]) -> Iterator[tuple[Call, Call]]:
    """Of every question the first attempt, which holds the prompt as it was, and the attempt that was accepted. What
    was not asked as a talk is left out, and so is what stands beside an answer that is gone from the store (None):
    whether that was the accepted attempt at the question before it, or the first at another, nobody can tell."""
    pairs: list[tuple[Call, Call]] = []
    asked: Call | None = None
    for call in calls:
        if call is None:
            pairs = pairs[:-1] if asked else pairs
            asked = None
        elif call["request"]["attempt"] == 0:
            asked = call
            pairs.append((asked, call))
        elif asked:
            pairs[-1] = asked, call
    return (pair for pair in pairs if "messages" in pair[0]["request"])


def _sample(config: HarvestConfig, made: Made, asked: Call, accepted: Call, ctx: PassContext) -> Sample:
    said = [Message(role=m["role"], content=m["content"]) for m in asked["request"]["messages"]]
    system = [message for message in said[:-1] if message.role == "system"]
    examples = _examples(config, said[len(system) : -1], ctx.rng(made.first, accepted["key"]))
    brief = config.brief.get(made.origin.stage)
    if brief and ctx.rng(made.first, f"brief {accepted['key']}").random() < 0.5:
        system = [Message(role="system", content=brief)]
    answer = Message(role="assistant", content=accepted["reply"]["text"], train=True)
    first = accepted["key"] in made.origin.calls[:1] or asked["key"] in made.origin.calls[:1]
    return Sample(
        form="chat",
        kind="harvest",
        messages=(*system, *examples, said[-1], answer),
        quotes=tuple(dict.fromkeys(quote for quotes in made.quotes.values() for quote in quotes)),
        language=str(getattr(made.first, "language", "en")),
        parents=tuple(made.quotes),
        marks={"step": made.origin.stage},
        origin=made.origin.model_copy(
            update={
                "stage": ctx.stage,
                "calls": (accepted["key"],),
                "prompt": made.origin.prompt if first else None,
                "model": made.origin.model or accepted["request"].get("model"),
            }
        ),
    )


def _examples(config: HarvestConfig, examples: list[Message], rng: random.Random) -> list[Message]:
    """Pairs of a worked question and its answer."""
    if config.examples == "kept" or not examples:
        return examples
    if config.examples == "dropped" or rng.random() < 0.5:
        return []
    pairs = [examples[at : at + 2] for at in range(0, len(examples), 2)]
    chosen = sorted(rng.sample(range(len(pairs)), rng.randint(1, len(pairs))))
    return [message for at in chosen for message in pairs[at]]
