"""Questions and answers as plain lines, for writers of any size: code says what each rests on, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gristmill.core.errors import Reject
from gristmill.core.records import Origin
from gristmill.generate.recall.checks import check_answer, check_first, check_next
from gristmill.generate.recall.claims import Claim
from gristmill.generate.recall.group import Group, Turn
from gristmill.generate.recall.hints import hints, names_tell
from gristmill.generate.recall.stages import RecallConfig
from gristmill.generate.recall.talk import offered
from gristmill.generate.source import Sentence
from gristmill.generate.wording import one_line
from gristmill.generate.writer import LINE_TOKENS, Writer

_ANSWER_TOKENS = 180
_ATTEMPTS = 2


@dataclass(frozen=True)
class Written:
    """The turns of one sample, and the calls that made them."""

    turns: tuple[Turn, ...]
    origin: Origin


@dataclass
class _Teller:
    """One draft's lines, asked for one after the other."""

    writer: Writer
    group: Group
    claim: Claim | None
    calls: list[str] = field(default_factory=list)
    model: str = ""

    async def line(
        self, name: str, check: Callable[[str], str], values: dict[str, str], *, tokens: int = LINE_TOKENS
    ) -> str:
        parsed = await self.writer.model.ask(
            self.writer.ctx.prompt(f"recall_line_{name}").render(**values, language=self.writer.language.name),
            lambda text: check(one_line(text)),
            max_tokens=tokens,
            temperature=self.writer.config.temperature,
            stop=("\n",),
            attempts=_ATTEMPTS,
        )
        self.calls += parsed.calls
        self.model = parsed.answer.model
        return parsed.value

    async def turn(self, facts: Sequence[Sentence]) -> Turn:
        """The question that opens a sample, and its answer."""
        shown = {"facts": self.group.placed(facts), **hints(self.group, self.claim, self.writer.ctx)}

        def check(text: str) -> str:
            return check_first(text, group=self.group, claim=self.claim)

        way = self.group.way
        question = await self.line("open" if way == "followup" else way, check, shown)
        name = f"answer_{way}" if way in ("false_premise", "unanswerable") else "answer"
        return Turn(question, await self.answer(name, question, facts, shown), tuple(facts))

    async def answer(self, name: str, question: str, facts: Sequence[Sentence], shown: dict[str, str]) -> str:
        def check(text: str) -> str:
            told = names_tell(self.writer)
            return check_answer(
                text, group=self.group, claim=self.claim, question=question, facts=facts, names_tell=told
            )

        return await self.line(name, check, {**shown, "question": question}, tokens=_ANSWER_TOKENS)


async def spoken(writer: Writer, config: RecallConfig, group: Group, claim: Claim | None) -> Written:
    teller = _Teller(writer, group, claim)
    if group.way == "followup":
        turns = await _talk(teller, config)
    else:
        turns = (await teller.turn(_facts(group)),)
    ref = writer.ctx.prompt(f"recall_line_{group.way}").ref
    return Written(turns, Origin(stage=writer.ctx.stage, prompt=ref, model=teller.model, calls=tuple(teller.calls)))


def _facts(group: Group) -> list[Sentence]:
    """What the answer will rest on: the sentence it begins from, and where the way wants more, the one that goes with
    it, or the next of its own passage."""
    if group.way in ("vague", "false_premise", "unanswerable"):
        return [group.begin]
    also = group.also or next(iter(_onwards(group)[1:]), None)
    return [group.begin, *([also] if also else [])]


def _onwards(group: Group) -> list[Sentence]:
    """The anchor's sentences from the first one on, and round again."""
    own = list(group.anchor.sentences)
    at = own.index(group.begin)
    return own[at:] + own[:at]


async def _talk(teller: _Teller, config: RecallConfig) -> tuple[Turn, ...]:
    """One sentence a turn. A talk whose next line is no good ends there; one turn is no talk."""
    sentences = _onwards(teller.group)[: config.turns]
    if len(sentences) < 2:
        raise Reject("too few sentences for a talk")
    turns = [await teller.turn(sentences[:1])]
    offers: list[str] = []
    for sentence in sentences[1:]:
        try:
            offer, turn = await _next(teller, turns[-1], sentence)
        except Reject as reject:
            if len(turns) < 2:
                raise
            teller.writer.ctx.count(**{f"talks ended early by {reject.reason}": 1})
            break
        offers.append(offer)
        turns.append(turn)
    return offered(turns, offers, teller.writer)


async def _next(teller: _Teller, before: Turn, sentence: Sentence) -> tuple[str, Turn]:
    """The offer to tell a sentence, the question it may answer, and the answer."""
    shown = {"facts": teller.group.placed([sentence])}
    offer = await teller.line("offer", check_next, shown)
    question = await teller.line("followup", check_next, {**shown, "before": f"{before.answer} {offer}"})
    answer = await teller.answer("answer", question, [sentence], shown)
    return offer, Turn(question, answer, (sentence,))
