"""One labelled row at work: what is asked about it, how its variants are checked, and what becomes of those that pass.

CDA, ADA and CADA as in arXiv 2409.11218; none of them changes the label. What code can check is checked by code; a
judge, whose verdict is a word of the schema, is asked where likeness lies in the `band`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, create_model

from gristmill.core.ask import Model, Parsed
from gristmill.core.errors import Reject
from gristmill.core.prompt import Prompt
from gristmill.core.records import Message, Origin, Sample, Span
from gristmill.core.stage import StepContext
from gristmill.generate.augment.likeness import around, changed, likeness, plain
from gristmill.generate.augment.stages import AugmentConfig, AugmentWay
from gristmill.generate.source import Language, language_of
from gristmill.generate.wording import one_line, places

T = TypeVar("T")
_WARM = 0.8  # temperature of further lines, where the recipe's own is lower
_VERDICT_TOKENS = 60
_TERM = 60  # characters of an aspect
_STEP = 100  # characters: a text may be twice as long as its original, counted in such steps: few schemas for many rows
WHOLE = "none; the whole text is meant"
"""Stands for the aspect where a label is about all of a text."""


@dataclass(frozen=True)
class Offer:
    """What a model wrote, and the calls it came from."""

    text: str
    prompt: str  # name@hash
    model: str
    calls: tuple[str, ...]

    @classmethod
    def of(cls, text: str, prompt: Prompt, parsed: Parsed[Any]) -> Offer:
        return cls(text, prompt.ref, parsed.answer.model, parsed.calls)


@dataclass(frozen=True)
class Variant:
    """A text that may become a row; `base` is what it is compared with."""

    way: AugmentWay
    text: str
    span: Span | None
    label: str
    base: Sample
    offer: Offer


@cache
def verdict_model(labels: tuple[str, ...]) -> type[BaseModel]:
    """The label as it reads, and whether the rest is right: words of the schema, never searched for in prose."""
    parts: dict[str, Any] = {"label": (Literal[(*labels, "unclear")], ...), "fits": (Literal["yes", "no"], ...)}
    return create_model("Verdict", **parts)


@cache
def list_model(name: str, most: int, longest: int) -> type[BaseModel]:
    text = Annotated[str, Field(min_length=1, max_length=longest)]
    parts: dict[str, Any] = {name: (Annotated[list[text], Field(min_length=1, max_length=most)], ...)}
    return create_model("Texts", __config__=ConfigDict(extra="forbid"), **parts)


@dataclass
class Job:
    config: AugmentConfig
    record: Sample
    ctx: StepContext
    model: Model
    judge: Model
    language: Language
    seen: set[str]  # original and siblings, as plain words
    contexts: list[Sample] | None = None  # CDA's rows

    @classmethod
    def of(cls, config: AugmentConfig, record: Sample, ctx: StepContext) -> Job:
        model = ctx.model(config.model)
        judge = ctx.model(config.judge) if config.judge else model
        language = language_of(config.language, record.language)
        return cls(config, record, ctx, model, judge, language, {" ".join(plain(record.text))})

    def aspect(self, sample: Sample) -> str:
        """The words that the label is about; the whole text where the row names none."""
        return sample.text[slice(*sample.spans[0])] if sample.spans else WHOLE

    async def texts(self, name: str, part: str, sample: Sample, **values: object) -> list[Offer]:
        """What the model offers: in one structured answer, or one line a call."""
        values |= {"text": sample.text, "aspect": self.aspect(sample), "count": self.config.variants}
        longest = _TERM if part == "terms" else -(-len(sample.text) // _STEP) * 2 * _STEP
        tokens = 60 + self.config.variants * (30 if part == "terms" else len(sample.text))
        if self.config.ask == "structured":
            prompt = self.ctx.prompt(name)
            parsed: Parsed[Any] = await self.model.structured(
                prompt.render(**values, language=self.language.name),
                list_model(part, self.config.variants, longest),
                max_tokens=tokens,
                temperature=self.config.temperature,
            )
            return [Offer.of(text.strip(), prompt, parsed) for text in getattr(parsed.value, part)]
        prompt, found = self.ctx.prompt(f"{name}_line"), []
        for sample_number in range(self.config.variants):
            warm = self.config.temperature if sample_number == 0 else max(self.config.temperature, _WARM)
            messages = prompt.render(**values, language=self.language.name)
            asked = self._line(messages, longest, temperature=warm, sample=sample_number)
            if (line := await self.tried(name, asked)) is not None:
                found.append(Offer.of(line.value, prompt, line))
        return found

    async def _line(self, messages: Sequence[Message], longest: int, *, temperature: float, sample: int) -> Parsed[str]:
        def check(text: str) -> str:
            if len(line := one_line(text)) > longest:
                raise ValueError("that is too long: write one short line")
            return line

        return await self.model.ask(
            messages, check, max_tokens=longest, temperature=temperature, stop=("\n",), sample=sample, attempts=1
        )

    async def tried(self, what: str, asked: Awaitable[T]) -> T | None:
        """An answer, or None (counted): one that a model cannot give does not cost the row its other variants."""
        try:
            return await asked
        except Reject as reject:
            self.ctx.count(**{f"{what}: {reject.reason}": 1})
            return None

    async def said(self, messages: Sequence[Message], characters: int) -> Parsed[str]:
        """A free answer about as long as a text of so many characters."""

        def check(text: str) -> str:
            if not 0 < len(said := text.strip()) <= 3 * characters + 80:
                raise ValueError("answer with the text alone")
            return said

        return await self.model.ask(messages, check, max_tokens=characters + 80, temperature=self.config.temperature)

    async def checked(self, variant: Variant, check: Callable[[Variant], float]) -> Sample | None:
        """The variant as a row, or None (counted). `check` gives the likeness that decides, or raises ValueError."""
        low, high = self.config.band
        key = " ".join(plain(variant.text))
        try:
            if key in self.seen:
                raise ValueError("said already")
            alike = check(variant)
            if alike < low and variant.way not in ("ada", "cada"):
                raise ValueError("too far from its original")
            judged = alike < high or variant.label != self.record.label
            calls = variant.offer.calls + (await self._judged(variant) if judged else ())
        except ValueError as error:
            self.ctx.count(**{f"{variant.way}: {error}": 1})
            return None
        self.seen.add(key)
        return self._row(variant, calls, alike, judged)

    async def _judged(self, variant: Variant) -> tuple[str, ...]:
        """The calls of a verdict for it; ValueError when it is against it. No verdict is a verdict against it."""
        same = variant.way in ("cda", "back_translation")
        messages = self.ctx.prompt("augment_judge_same" if same else "augment_judge_sense").render(
            text=variant.base.text,
            variant=variant.text,
            aspect=variant.text[slice(*variant.span)] if variant.span else WHOLE,
            about=self.config.about,
            labels=", ".join(self.config.labels),
            language=self.language.name,
        )
        schema = verdict_model(tuple(self.config.labels))
        try:
            parsed: Parsed[Any] = await self.judge.structured(messages, schema, max_tokens=_VERDICT_TOKENS)
        except Reject as reject:
            raise ValueError(f"judge's {reject.reason}") from reject
        if parsed.value.label != variant.label:
            raise ValueError("judged another label")
        if parsed.value.fits != "yes":
            raise ValueError("judged unfit")
        return parsed.calls

    def _row(self, variant: Variant, calls: tuple[str, ...], alike: float, judged: bool) -> Sample:
        marks = {
            "split": "train",
            "variant_of": self.record.id,
            "augmented": variant.way,
            "likeness": round(alike, 3),
            "changed": round(changed(self.record.text, variant.text), 3),
            "judged": judged,
        }
        return Sample(
            form="labelled",
            kind=self.record.kind,
            text=variant.text,
            label=variant.label,
            spans=(variant.span,) if variant.span else (),
            quotes=self.record.quotes,
            language=self.language.code,
            parents=(self.record.id,),
            marks=marks,
            origin=Origin(stage=self.ctx.stage, prompt=variant.offer.prompt, model=variant.offer.model, calls=calls),
        )

    def new_context(self, variant: Variant) -> float:
        """CDA's check: the aspect stands once, as it was (`span` was found so), and enough of the rest is changed.
        A counterfactual has as few edits as turn the label (arXiv 1909.12434): one word is enough, and the judge is
        always asked."""
        theirs, ours = around(variant.base.text, self._span(variant.base)), around(variant.text, variant.span)
        share = changed(theirs, ours)
        enough = share > 0 if variant.way == "counterfactual" else share >= self.config.change
        if not enough:
            raise ValueError("hardly changed")
        return likeness(variant.base.text, variant.text)

    def new_aspect(self, variant: Variant) -> float:
        """ADA's check: without the aspect the text is what it was, to the byte; the aspect is another one. The likeness
        is that of the aspects, and drops none: waiters and staff are far apart as vectors."""
        old, new = self._span(variant.base), variant.span
        if old is None or new is None:
            raise ValueError("no aspect")
        one, other = variant.base.text, variant.text
        if (one[: old[0]], one[old[1] :]) != (other[: new[0]], other[new[1] :]):
            raise ValueError("another context")
        if plain(other[slice(*new)]) in ([], plain(one[slice(*old)])):
            raise ValueError("the same aspect")
        if places(other, other[slice(*new)]) != [new]:
            raise ValueError("aspect more than once")
        return likeness(one[slice(*old)], other[slice(*new)])

    @staticmethod
    def _span(sample: Sample) -> Span | None:
        return sample.spans[0] if sample.spans else None
