"""Questions over several passages: what code chooses, what a model is asked, and what is learned, proven or dropped."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.generate.conftest import BEFORE, DOCUMENT, PROMPTS, Context, chunk_of

from gristmill.core.ask import Answer, Parsed, Usage
from gristmill.core.errors import InputError, Reject
from gristmill.core.prompt import read_prompt
from gristmill.core.records import Chunk, Document, Draft, Quote, Record, Sample
from gristmill.core.stage import Dropped
from gristmill.core.thoughts import parted
from gristmill.curate import ground
from gristmill.generate.recall import neighbours, proof, write
from gristmill.generate.recall.claims import falsified, numbered, says
from gristmill.generate.recall.hints import names_of
from gristmill.generate.recall.stages import WAYS, RecallConfig
from gristmill.generate.recall.talk import ACCEPTANCES
from gristmill.generate.source import Sentence
from gristmill.runs.plan import make_plan

RECIPE = Path(__file__).parents[2] / "recipes" / "recall.yaml"
WRITER = '{"provider": "openai", "base_url": "http://127.0.0.1:1/v1", "model": "m", "api_key": null}'

OTHER_TEXT = (
    "The chapel of Varn was begun in 1688 by the engineer Olm Reed. Its bell weighs 310 kilograms. It has no roof."
)
FAR_TEXT = "Sheep on the hill farms are shorn in June. Their wool is sold in Tollin."


def document_of(path: str, text: str) -> Document:
    return Document(path=path, title=f"About {path}", text=text, language="en", media_type="text/plain")


OTHER, FAR = document_of("chapel.md", OTHER_TEXT), document_of("sheep.md", FAR_TEXT)


def chunk_in(document: Document, **more: Any) -> Chunk:
    spans = tuple(hit.span() for hit in re.finditer(r"\S.*?[.](?=\s|$)", document.text))
    return Chunk(
        path=document.path,
        title=document.title,
        text=document.text,
        start=0,
        end=len(document.text),
        sentences=spans,
        tokens=30,
        language="en",
        parents=(document.id,),
        **more,
    )


TOWER, CHAPEL, SHEEP = chunk_of(), chunk_in(OTHER), chunk_in(FAR)
CHUNKS = [TOWER, CHAPEL, SHEEP]


class World(Context):
    """The context of a step or a pass, with all ancestors."""

    def __init__(self, model: Any = None, *records: Record) -> None:
        super().__init__(model, OTHER, FAR, *CHUNKS, *records)

    def know(self, *records: Record) -> None:
        self._records |= {record.id: record for record in records}

    def ancestors(self, record: Record, kind: type[Any]) -> list[Any]:
        left, found = deque(record.parents), dict[str, Record]()
        while left:
            parent = self._records.get(left.popleft())
            if parent is not None:
                found |= {parent.id: parent} if isinstance(parent, kind) else {}
                left.extend(parent.parents)
        return list(found.values())


class Script:
    """Stands at the protocol: says a function of the last message, parsed and asked again as the real one does."""

    role, identity, context = "writer", "script", None

    def __init__(self, say: Callable[[str], str]) -> None:
        self.say = say
        self.asked: list[str] = []

    async def ask(self, messages: Any, parse: Any, *, attempts: int = 3, **_options: Any) -> Any:
        for _ in range(attempts):
            self.asked.append(messages[-1].content)
            try:
                text = self.say(messages[-1].content)
                key = f"key{len(self.asked)}"
                return Parsed(parse(text), Answer(text, "stop", Usage(), key, self.identity), (key,))
            except ValueError as error:
                problem = str(error)
        raise Reject("invalid answer", problem)

    async def structured(self, messages: Any, schema: Any, **options: Any) -> Any:
        return await self.ask(messages, schema.model_validate_json, **{"attempts": options.get("attempts", 3)})

    async def embed(self, texts: Any) -> list[list[float]]:
        return [[float("sheep" in text.lower()), 1.0] for text in texts]


def config(*ways: str, **more: Any) -> RecallConfig:
    return RecallConfig(kind="generate.recall", model="writer", ways=ways or ["open"], **more)


def drafts(settings: RecallConfig, chunks: list[Chunk] | None = None) -> list[Draft]:
    found = neighbours.run(settings, CHUNKS if chunks is None else chunks, World())
    return [record for record in found if isinstance(record, Draft)]


def draft_of(settings: RecallConfig, chunk: Chunk = TOWER) -> Draft:
    return next(draft for draft in drafts(settings) if draft.parents[0] == chunk.id)


async def written(settings: RecallConfig, say: Callable[[str], str], draft: Draft | None = None) -> Any:
    draft = draft or draft_of(settings)
    context = World(Script(say), draft)
    (record,) = await write.run(settings, draft, context)
    context.know(record)
    return record, context


# What code chooses


def test_each_chunk_is_an_anchor_and_its_nearest_passage_comes_second() -> None:
    found = drafts(config(*WAYS, per_chunk=2, sources=2))
    assert {draft.parents[0] for draft in found} == {chunk.id for chunk in CHUNKS}
    tower = [draft for draft in found if draft.parents[0] == TOWER.id]
    assert {draft.parents for draft in tower} == {(TOWER.id, CHAPEL.id)}
    counts = {way: sum(draft.data["way"] == way for draft in tower) for way in WAYS}
    assert counts == {**dict.fromkeys(WAYS, 2), "comparison": 1}  # sentences that nothing is like are not compared
    assert len({draft.data["begin"] for draft in tower if draft.data["way"] == "open"}) == 2


def test_what_is_chosen_does_not_depend_on_order_or_on_how_many_are_asked_about() -> None:
    every = drafts(config("open", "comparison"))
    assert {draft.id for draft in drafts(config("open", "comparison"), CHUNKS[::-1])} == {draft.id for draft in every}
    some = drafts(config("open", "comparison", anchors=1))
    assert len({draft.parents[0] for draft in some}) == 1 and {each.id for each in some} <= {each.id for each in every}
    assert any(len(draft.parents) == 3 for draft in some)  # neighbours come from all chunks


def test_a_sentence_is_not_compared_with_itself_where_chunks_overlap_or_documents_repeat() -> None:
    twin = chunk_in(document_of("copy.md", TOWER.text))
    lapping = chunk_in(document_of("lapping.md", f"{OTHER_TEXT} {TOWER.text}"))
    found = drafts(config("comparison", per_chunk=9), [TOWER, twin, lapping])
    assert found
    for draft in found:
        source, start = draft.data["with"]  # type: ignore[misc]
        told = {each.id: each.text for each in (TOWER, twin, lapping)}
        own, other = told[draft.parents[0]], told[draft.parents[source]]  # type: ignore[index]
        assert other[start:].partition(".")[0] not in own  # type: ignore[misc]


def test_of_documents_that_repeat_each_other_the_same_are_found_in_any_order() -> None:
    copies = [chunk_in(document_of(f"copy{n}.md", OTHER_TEXT)) for n in range(4)]
    found = [{draft.id for draft in drafts(config(sources=3), pool)} for pool in (copies, copies[::-1])]
    assert found[0] == found[1]


def test_what_cannot_be_asked_is_counted() -> None:
    world = World()
    list(neighbours.run(config("false_premise"), [SHEEP], world))  # no number to make wrong
    assert world.counts["false_premise: no sentence to begin from"] == 1
    list(neighbours.run(config("comparison", sources=2), [SHEEP], world))
    assert world.counts["comparison: no sentence to begin from"] == 1
    bare = SHEEP.model_copy(update={"sentences": ()})
    dropped = [each for each in neighbours.run(config(), [bare], world) if isinstance(each, Dropped)]
    assert [each.reason for each in dropped] == ["no sentence"]


async def test_a_role_may_find_the_neighbours() -> None:
    settings = config(embedding="embedder", sources=2)
    world = World(Script(str))
    marked = [(await neighbours.vectors(settings, chunk, world))[0] for chunk in CHUNKS]
    assert [chunk.id for chunk in marked] == [chunk.id for chunk in CHUNKS] and all(
        neighbours.VECTOR in c.marks for c in marked
    )
    assert (await neighbours.vectors(config(), TOWER, world)) == [TOWER]
    assert drafts(settings, marked)


@given(st.integers(0, 999_999), st.integers(0, 99))
def test_a_wrong_number_is_another_of_as_many_digits_that_nothing_says(number: int, seed: int) -> None:
    sentence = f"It has {number} rooms and {number + 1} doors."
    claim = falsified(sentence, known=sentence, rng=Random(seed))
    assert claim.text != sentence and says(claim.text, claim.wrong) and not says(sentence, claim.wrong)
    assert claim.right in (str(number), str(number + 1)) and len(claim.wrong) == len(claim.right)
    assert claim.text.replace(claim.wrong, claim.right, 1) == sentence


@pytest.mark.parametrize(
    ("text", "there"), [("Room A4 is shut.", False), ("In 1822.", True), ("at 10:30", False), ("No number", False)]
)
def test_only_plain_numbers_are_made_wrong(text: str, there: bool) -> None:
    assert numbered(text) is there


# What is written


def line(text: str) -> str:
    """A writer that knows its prompts: the shown facts' first words come back as question and answer."""
    if "Wrong claim:" in text:
        wrong = re.search(r"Say in the question: (\d+)", text)
        assert wrong
        return f"Who knew the lighthouse at Varn when it was {wrong[1]}?"
    fact = re.search(r"Facts?:\n- \([^)]*\) (.*)", text)
    assert fact, text
    if "Question:" in text:
        return fact[1]
    return "What is there to know of the lighthouse at Varn?"


@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("vague", "unanswerable")])
async def test_every_way_gives_a_sample_with_quotes_copied_by_code(way: str) -> None:
    sample, _ = await written(config(way, ask="line", sources=2), line)
    assert sample.kind == "recall" and sample.marks == {"way": way} and sample.origin.calls
    documents = {each.path: each for each in (DOCUMENT, OTHER, FAR)}
    for quote in sample.quotes:
        assert documents[quote.path].text[quote.start : quote.end] == quote.text
    if way == "comparison":
        assert {quote.path for quote in sample.quotes} == {"varn.md", "chapel.md"}
    assert all(message.train is (message.role == "assistant") for message in sample.messages)


@pytest.mark.parametrize("way", ["open", "followup", "comparison"])
async def test_the_grounding_gate_of_the_recipe_holds_its_answers_to_their_quotes(way: str) -> None:
    recipe = make_plan(RECIPE, [f"models.writer={WRITER}"])
    gate: Any = recipe.node("grounded").config
    (asked,) = recipe.node("grounded").needs
    assert way in recipe.settings(recipe.node(asked))["ways"] and asked not in recipe.node("filter").needs
    sample, context = await written(config(way, ask="line", thoughts=True, cite=True, sources=2), line)
    assert await ground.run(gate, sample, context) == [sample]
    *before, last = sample.messages
    invented = last.content.replace("Answer: ", "Answer: Brenda Quill did. ")
    messages = (*before, last.model_copy(update={"content": invented}))
    with pytest.raises(Reject, match="name not in quote"):
        await ground.run(gate, sample.model_copy(update={"messages": messages}), context)


async def test_thoughts_are_the_passages_word_for_word_before_the_answer() -> None:
    sample, _ = await written(config("comparison", ask="line", thoughts=True, cite=True, sources=2), line)
    (said,) = [parted(message.content, sample) for message in sample.messages if message.role == "assistant"]
    assert said.thought.splitlines() == [
        f'The Varn Lighthouse > History (varn.md): "{sample.quotes[0].text}"',
        f'About chapel.md (chapel.md): "{sample.quotes[1].text}"',
    ]
    assert said.answer.endswith("(varn.md, chapel.md)") and sample.marks["thoughts"] is True


async def test_a_false_premise_is_in_the_question_and_put_right_in_the_answer() -> None:
    sample, context = await written(config("false_premise", ask="line"), line)
    shown = " ".join(context._model.asked)
    wrong, right = re.search(r"Wrong in the question: (\d+) instead of (\d+)", shown).groups()  # type: ignore[union-attr]
    assert says(sample.question, wrong) and not says(sample.question, right) and says(sample.answer, right)
    with pytest.raises(Reject, match="invalid answer") as caught:  # an answer that goes along with it
        await written(config("false_premise", ask="line"), lambda text: line(text).replace(right, wrong))
    assert f"right: {right}" in caught.value.detail


@pytest.mark.parametrize(
    ("question", "answer", "problem"),
    [
        ("What was that thing by the sea again?", "The lighthouse at Varn and nothing else.", None),
        ("Who was Edda Moor, and what did she build for us?", "The lighthouse at Varn.", "vague"),
        ("What was it that stood there in those 99 years?", "The lighthouse at Varn.", "vague"),
        ("What was that thing by the sea again?", "That tall one over there.", "by name"),
        ("What was that thing in the passage again?", "The lighthouse at Varn.", "a text"),
    ],
)
async def test_a_vague_question_names_nothing_and_its_answer_does(
    question: str, answer: str, problem: str | None
) -> None:
    settings = config("vague", ask="line")
    first = [draft for draft in drafts(config("vague", per_chunk=9)) if draft.parents[0] == TOWER.id]
    draft = next(each for each in first if each.data["begin"] == len(BEFORE))  # built by the engineer Edda Moor

    def say(text: str) -> str:
        return answer if "Question:" in text else question

    if problem is None:
        sample, _ = await written(settings, say, draft)
        assert (sample.question, sample.answer) == (question, answer)
    else:
        with pytest.raises(Reject) as caught:
            await written(settings, say, draft)
        assert problem in caught.value.detail


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Die Mühle von Grauwick hat drei Räder und gehört der Familie Stolt.", ["Grauwick", "Stolt"]),
        ("Der Leuchtturm in Varn ist ein Werk der Ingenieurin Edda Moor.", ["Edda", "Moor", "Varn"]),
        ("Jeder Bienenstock gibt dunklen Honig.", []),
    ],
)
def test_german_names_are_told_from_nouns_by_what_stands_before(text: str, names: list[str]) -> None:
    quote = Quote(text=text, start=0, end=len(text), path="a.md")
    assert names_of(Sentence(1, text, "", quote), "de") == names


async def test_an_answer_with_a_number_that_nothing_says_is_refused() -> None:
    def say(text: str) -> str:
        return "It has 4711 lamps." if "Question:" in text else line(text)

    with pytest.raises(Reject) as caught:
        await written(config("open", ask="line"), say)
    assert "nothing says 4711" in caught.value.detail


@pytest.mark.parametrize(("language", "refused"), [("en", True), ("de", False), ("fr", False)])
async def test_an_answer_with_a_name_that_nothing_says_is_refused_where_capitals_tell_names(
    language: str, refused: bool
) -> None:
    def say(text: str) -> str:
        return "It was the work of old Pell Arden." if "Question:" in text else line(text)

    settings = config("open", ask="line", language=language)
    if refused:
        with pytest.raises(Reject) as caught:
            await written(settings, say)
        assert "nothing says Arden" in caught.value.detail
    else:
        sample, _ = await written(settings, say)
        assert sample.language == language


@pytest.mark.parametrize(("language", "short"), [("en", True), ("Welsh", False)])
async def test_a_talk_goes_on_by_offers_that_are_accepted_or_not(language: str, short: bool) -> None:
    settings = config("followup", ask="line", turns=5, language=language)

    def say(text: str) -> str:
        if "Said before:" in text:
            return "And what else is there?"
        return "Shall I go on?" if text.startswith("Fact:") else line(text)

    sample, _ = await written(settings, say)
    asked = [message.content for message in sample.messages if message.role == "user"]
    said = [message.content for message in sample.messages if message.role == "assistant"]
    assert len(asked) == len(said) == 5 and len({quote.text for quote in sample.quotes}) == 5
    assert all(text.endswith("Shall I go on?") for text in said[:-1]) and not said[-1].endswith("?")
    known = {*ACCEPTANCES["en"], "And what else is there?"}
    assert set(asked[1:]) <= (known if short else {"And what else is there?"})


async def test_a_talk_that_breaks_off_keeps_what_was_good() -> None:
    def say(text: str) -> str:
        if text.startswith("Fact:"):
            return "Shall I go on?" if len(asked) < 1 else "-"
        if "Said before:" in text:
            asked.append(text)
            return "And what else is there?"
        return line(text)

    asked: list[str] = []
    sample, context = await written(config("followup", ask="line", turns=4), say)
    assert len(sample.messages) == 4 and context.counts["talks ended early by invalid answer"] == 1


def structured(question: str, sentences: list[int], answer: str, **more: Any) -> str:
    import orjson

    return orjson.dumps({"question": question, "sentences": sentences, "answer": answer, **more}).decode()


async def test_structured_the_model_names_the_sentences_and_code_copies_them() -> None:
    said = structured(
        "How old are the works of engineers in Varn?", [1, 6], "Edda Moor's is of 1822, Olm Reed's was begun in 1688.",
        opening="Two buildings come to mind.",
    )  # fmt: skip
    sample, context = await written(config("comparison", thoughts=True, sources=2), lambda _: said)
    assert [quote.path for quote in sample.quotes] == ["varn.md", "chapel.md"]
    assert parted(sample.answer, sample).thought.startswith("Two buildings come to mind.\n")
    assert "6. The chapel of Varn was begun in 1688" in context._model.asked[0]


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (structured("How old is Varn's lighthouse?", [99], "It is of 1822."), "less than or equal"),
        (structured("How old is Varn's lighthouse?", [1, 2], "It is of 1822."), "two passages"),
        (structured("What is in the passage on Varn?", [1, 6], "It is of 1822."), "a text"),
        (structured("How old is Varn's lighthouse?", [1, 6], "It is of 1822, in the text above."), "a text"),
        ("{}", "Field required"),
    ],
)
async def test_structured_answers_that_do_not_hold_are_dropped_with_their_problem(said: str, problem: str) -> None:
    with pytest.raises(Reject, match="invalid answer") as caught:
        await written(config("comparison", sources=2), lambda _: said)
    assert problem in caught.value.detail


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"offer": "Shall I tell what the passage says?"}, "a text"),
        ({"opening": "Answer: the lighthouse"}, "without 'Answer:'"),
        ({}, None),
    ],
)
async def test_structured_what_stands_around_an_answer_is_checked_too(change: dict[str, str], problem: Any) -> None:
    import orjson

    turn = {"question": "What is known of the lighthouse at Varn?", "sentences": [1], "answer": "Edda Moor built it."}
    turn |= {"opening": "The lighthouse comes to mind.", "offer": "Shall I go on?", **change}
    said = orjson.dumps({"turns": [turn, turn]}).decode()
    settings = config("followup", turns=2, thoughts=True)
    if problem is None:
        sample, _ = await written(settings, lambda _: said)
        assert sample.messages[1].content.endswith("Edda Moor built it. Shall I go on?")
    else:
        with pytest.raises(Reject, match="invalid answer") as caught:
            await written(settings, lambda _: said)
        assert problem in caught.value.detail


# What is proven


async def proven(verdict: str, reply: str = "admits", **more: Any) -> tuple[list[Sample], Any]:
    settings = config("unanswerable", ask="line", search=2, **more)
    draft, context = await written(settings, line)
    assert isinstance(draft, Draft) and draft.kind == write.UNPROVEN
    (searched,) = proof.search(settings, [*CHUNKS, draft], context)  # type: ignore[misc]
    assert isinstance(searched, Draft)
    context._model.say = lambda _: f'{{"passage": "{verdict}", "reply": "{reply}"}}'
    context.know(searched)
    return await proof.run(settings, searched, context), context


async def test_a_question_that_nothing_answers_carries_its_proof() -> None:
    (sample,), context = await proven("related")
    mark = sample.marks["unanswerable"]
    assert mark["searched"] == 3 and mark["verdicts"] == ["related", "related"] and len(mark["calls"]) == 3  # type: ignore[index,call-overload,arg-type]
    assert set(mark["read"]) == {TOWER.id, CHAPEL.id}  # type: ignore[index,arg-type,call-overload]
    assert sample.quotes[0].path == "varn.md" and {TOWER.id} <= {c.id for c in context.ancestors(sample, Chunk)}


async def test_a_question_that_some_passage_answers_is_dropped() -> None:
    with pytest.raises(Reject, match="a passage answers it"):
        await proven("answers")


async def test_an_answer_that_claims_to_know_what_nothing_tells_is_dropped() -> None:
    with pytest.raises(Reject, match="claims to know"):
        await proven("related", "claims")


async def test_without_a_clear_verdict_nothing_is_proven() -> None:
    with pytest.raises(Reject, match="invalid answer"):
        await proven("perhaps")


def test_where_every_question_was_dropped_the_search_says_so() -> None:
    with pytest.raises(InputError, match="no question came through"):
        list(proof.search(config(), CHUNKS, World()))  # type: ignore[arg-type]


async def test_what_needs_no_proof_goes_through() -> None:
    sample, context = await written(config("open", ask="line"), line)
    assert list(proof.search(config(), [*CHUNKS, sample], context)) == [sample]  # type: ignore[arg-type]
    assert await proof.run(config(), sample, context) == [sample]
    assert await write.run(config(), TOWER, context) == [TOWER]


# What is said to the model


@pytest.mark.parametrize(("language", "named"), [(None, "English"), ("de", "German"), ("Welsh", "Welsh")])
@pytest.mark.parametrize("ask", ["line", "structured"])
async def test_the_language_reaches_every_prompt(language: str | None, named: str, ask: str) -> None:
    for way in WAYS:
        draft, script = draft_of(config(way)), Script(lambda text: "-")
        with pytest.raises(Reject):
            await write.run(config(way, ask=ask, language=language), draft, World(script, draft))
        assert script.asked and all(f"Write in: {named}" in asked for asked in script.asked)
    for path in PROMPTS.glob("recall_*.md"):
        assert path.stem in ("recall_proof", "recall_reply") or "language" in read_prompt(path.stem, path).names


@pytest.mark.parametrize(
    "wrong",
    [
        {"ways": ["open", "open"]},
        {"ways": ["comparison"], "sources": 1},
        {"ways": ["open"], "search": 9},
        {"ways": ["open"], "turns": 4},
        {"ask": "line", "max_tokens": 900},
        {"ways": ["rude"]},
    ],
)
def test_what_would_do_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RecallConfig(kind="generate.recall", model="writer", **wrong)
