"""A model at work on one record: the prompt's values, the call, and where what it wrote came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gristmill.core.ask import Model, Parsed
from gristmill.core.errors import Reject
from gristmill.core.prompt import Prompt
from gristmill.core.records import Origin, Record
from gristmill.core.stage import StepContext
from gristmill.generate.config import LanguageConfig
from gristmill.generate.source import Language, Sentence, Source, language_of, source_of

LINE_TOKENS = 100
_VARIED = 0.8  # temperature of further wordings, where the recipe's own is lower


@dataclass(frozen=True)
class Written:
    """One line that passed its check, and how it came to be."""

    text: str
    origin: Origin


@dataclass(frozen=True)
class Writer:
    config: LanguageConfig
    record: Record
    ctx: StepContext
    model: Model
    source: Source
    language: Language

    @classmethod
    def of(cls, config: LanguageConfig, record: Record, ctx: StepContext) -> Writer:
        source = source_of(record, ctx)
        language = language_of(config.language, source.chunk.language)
        return cls(config, record, ctx, ctx.model(config.model), source, language)

    def temperature(self, wording: int) -> float:
        """The recipe's for the first wording; warm enough to differ for the others."""
        return self.config.temperature if wording == 0 else max(self.config.temperature, _VARIED)

    def origin(self, prompt: Prompt, parsed: Parsed[Any]) -> Origin:
        return Origin(stage=self.ctx.stage, prompt=prompt.ref, model=parsed.answer.model, calls=parsed.calls)

    async def line(
        self, prompt: Prompt, sentence: Sentence, check: Callable[[str], str], *, wording: int = 0, **values: object
    ) -> Written | None:
        """One line about one sentence, or None (counted) when the model finds none that passes: a sentence that a
        small model cannot handle must not cost the rest of its chunk, and asked again it seldom does better."""
        values |= {"place": self.source.place, "before": sentence.before or "-", "sentence": sentence.text}
        try:
            parsed = await self.model.ask(
                prompt.render(**values, language=self.language.name),
                check,
                max_tokens=LINE_TOKENS,
                temperature=self.temperature(wording),
                stop=("\n",),
                sample=wording,
                attempts=1,
            )
        except Reject as reject:
            self.ctx.count(**{f"lines with {reject.reason}": 1})
            return None
        return Written(parsed.value, self.origin(prompt, parsed))
