"""Text corrected by a model: nothing added, nothing dropped, and everything stands where the document says."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.generate.conftest import Context

from gristmill.core.ask import Answer, Parsed, Usage
from gristmill.core.errors import InputError, Reject
from gristmill.core.records import Block, Document, Draft, Page, Sample
from gristmill.curate.ground import sources
from gristmill.generate import clean
from gristmill.generate.clean_check import check_correction
from gristmill.generate.clean_stages import CleanConfig
from gristmill.generate.source import chat, source_of
from gristmill.ingest.chunk import chunks
from gristmill.ingest.stages import ChunkConfig

CONFIG = CleanConfig(kind="generate.clean", model="writer")
PAGES = [
    "The hrbour of Varn",
    "Tlie library holds 912 maps.\n\nlt is open on Thurs- days, and its door is",
    "blue. The end.",
]


def scanned() -> Document:
    """Three pages; the second and the third share a paragraph, and the code is nobody's to correct."""
    text = f"{PAGES[0]}\n\n{PAGES[1]} {PAGES[2]}\n\nx  =  1"
    starts = [text.index(page) for page in PAGES]
    ends = [*starts[1:], len(text)]
    paragraph = text.index("lt is")
    blocks = [
        Block(kind="heading", start=0, end=len(PAGES[0]), level=1),
        Block(kind="paragraph", start=starts[1], end=text.index("\n\nlt is")),
        Block(kind="paragraph", start=paragraph, end=text.index("\n\nx  =")),
        Block(kind="code", start=text.index("x  ="), end=len(text)),
    ]
    pages = [Page(number=n, start=a, end=b) for n, (a, b) in enumerate(zip(starts, ends, strict=True), 1)]
    return Document(
        path="varn.txt", title="Varn", text=text, language="en", media_type="text/plain",
        pages=tuple(pages), blocks=tuple(blocks),
    )  # fmt: skip


class Corrector:
    """Stands at the protocol; what it says is a function of the piece."""

    role, identity = "writer", "corrector"

    def __init__(self, says: Callable[[str], str]) -> None:
        self.says = says
        self.asked: list[str] = []

    async def ask(self, messages: Any, parse: Any, **_: Any) -> Any:
        self.asked.append(messages[-1].content)
        said = self.says(messages[-1].content.partition("Text:\n")[2])
        try:
            return Parsed(parse(said), Answer(said, "stop", Usage(), f"key{len(self.asked)}", self.identity), ("key",))
        except ValueError as error:
            raise Reject("invalid answer", str(error)) from error


def mended(text: str) -> str:
    for wrong, right in {"Tlie": "The", "lt is": "It is", "Thurs- days": "Thursdays", "hrbour": "harbour"}.items():
        text = text.replace(wrong, right)
    return text


async def cleaned(
    document: Document, says: Callable[[str], str], *more: Document
) -> tuple[list[Any], Context, Corrector]:
    model = Corrector(says)
    context = Context(model, document, *more)  # type: ignore[arg-type]
    drafts: list[Draft] = []
    for each in (document, *more):
        for piece in await clean.pieces(CONFIG, each, context):
            context._records[piece.id] = piece
            drafts += await clean.correct(CONFIG, piece, context)
    return list(clean.join(CONFIG, drafts, context)), context, model  # type: ignore[arg-type]


async def test_pages_and_blocks_stay_where_they_are() -> None:
    before = scanned()
    [after], context, model = await cleaned(before, mended)
    assert after.text == mended(before.text) and after.parents == (before.id,)
    for old, new in zip((*before.pages, *before.blocks), (*after.pages, *after.blocks), strict=True):
        assert after.text[new.start : new.end] == mended(before.text[old.start : old.end])
    assert [p.number for p in after.pages] == [1, 2, 3] and [b.kind for b in after.blocks] == [
        b.kind for b in before.blocks
    ]
    assert not any("x  =" in asked for asked in model.asked) and len(model.asked) == 4  # the shared paragraph is two
    assert context.counts["pieces corrected"] == 3 and context.counts["pieces that were right"] == 1
    assert after.origin.model == "corrector" and len(after.origin.calls) == 4
    assert after.marks["corrected"] == {"pieces": 4, "kept": 0}


async def test_what_is_no_correction_leaves_its_piece_alone() -> None:
    before = scanned()
    [after], context, _ = await cleaned(before, lambda text: mended(text) if "912" in text else f"Here it is: {text}")
    assert after.text == before.text.replace("Tlie", "The") and after.marks["corrected"] == {"pieces": 4, "kept": 3}
    assert context.counts["pieces kept as they were: add nothing"] == 3


async def test_a_document_that_could_not_be_corrected_at_all_stays_as_it_was_beside_one_that_could() -> None:
    short = scanned().model_copy(update={"text": "A clean page.", "pages": (), "path": "short.txt"})
    short = short.model_copy(update={"blocks": (Block(kind="paragraph", start=0, end=len(short.text)),)})
    says = {short.text: "I would rather not."}
    [kept, other], context, _ = await cleaned(short, lambda text: says.get(text, mended(text)), scanned())
    assert (kept.text, kept.blocks, kept.parents) == (short.text, short.blocks, (short.id,))
    assert kept.marks["corrected"] == {"pieces": 1, "kept": 1} and other.text == mended(scanned().text)
    assert context.counts["documents kept as they were"] == 1


async def test_a_cleaning_that_did_nothing_is_an_error() -> None:
    with pytest.raises(InputError, match="no piece of any document could be corrected: all 4 were refused"):
        await cleaned(scanned(), lambda _: "I would rather not.")


async def test_all_that_follows_reads_the_corrected_text() -> None:
    before = scanned()
    [after], _, _ = await cleaned(before, mended)
    context = Context(None, before, after)
    made = chunks(after, ChunkConfig(kind="ingest.chunk", tokens=400), len)
    for chunk in made:
        chunk = chunk.model_copy(update={"parents": (after.id,)})
        context._records[chunk.id] = chunk
        for sentence in source_of(chunk, context).sentences:  # type: ignore[arg-type]
            quote = sentence.quote
            assert after.text[quote.start : quote.end] == quote.text and quote.text in mended(before.text)
            said = chat("When is the library of Varn open, and what does it hold?", "912 maps, on Thursdays.")
            sample = Sample(form="chat", kind="qa", messages=said, quotes=(quote,), parents=(chunk.id,))
            read = [source.text for source in sources(sample, context)]  # type: ignore[arg-type]
            assert read == [chunk.text, after.text, before.text]
    assert any("on Thursdays" in chunk.text for chunk in made) and not any("Thurs-" in chunk.text for chunk in made)


async def test_a_document_with_nothing_to_correct_passes() -> None:
    code = scanned().model_copy(update={"blocks": scanned().blocks[-1:]})
    [after], _, model = await cleaned(code, mended)
    assert after.text == code.text and not model.asked


async def test_a_long_paragraph_is_cut_between_sentences() -> None:
    text = "The tower stands on the rock. " * 60
    block = Block(kind="paragraph", start=0, end=len(text))
    document = scanned().model_copy(update={"text": text, "pages": (), "blocks": (block,)})
    found = [draft.data["text"] for draft in await clean.pieces(CONFIG, document, Context(None, document))]
    assert len(found) > 1 and all(len(str(piece)) <= CONFIG.longest for piece in found)
    assert all(str(piece).endswith("rock.") for piece in found) and " ".join(map(str, found)) == text.strip()


SOURCE = "Tlie tower 0f Skorrow Light was not built before 1794. lt is 41 metres tall, and its 1amp is am- ber."
RIGHT = "The tower of Skorrow Light was not built before 1794. It is 41 metres tall, and its lamp is amber."


def check(text: str, *, source: str = SOURCE, language: str = "en") -> str:
    return check_correction(text, source=source, language=language, changed=0.3)


def test_a_correction_passes() -> None:
    assert check(RIGHT) == RIGHT


@pytest.mark.parametrize(
    ("instead", "why"),
    [
        ({"not ": ""}, "leave nothing"),
        ({"1794": "1749"}, "number"),
        ({"41": "41.0"}, "number"),
        ({"Skorrow": "Skarrow"}, "name"),
        ({"lamp": "old lamp"}, "add nothing"),
        ({"lamp": "a lamp"}, "add nothing"),
        ({"tall": "tall now"}, "add nothing"),
        ({"amber": "golden"}, "leave nothing|reword"),
        ({", and its lamp is amber": ""}, "leave nothing"),
        ({"The tower": "**The tower**"}, "markup"),
        ({" It is": "\nIt is"}, "lines"),
        ({RIGHT: ""}, "empty"),
    ],
)
def test_what_adds_or_drops_anything_is_refused(instead: dict[str, str], why: str) -> None:
    [(old, new)] = instead.items()
    assert old in RIGHT
    with pytest.raises(ValueError, match=why):
        check(RIGHT.replace(old, new))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("What is left", "What is left?"),
        ("They close at noon.", "They close at noon?"),
        ('He says "stop" to him.', "He says stop to him."),
        ("The mill (a ruin) is shut.", "The mill a ruin is shut."),
    ],
)
def test_what_asks_and_what_is_quoted_stays(source: str, text: str) -> None:
    with pytest.raises(ValueError, match="question mark"):
        check(text, source=source)


def test_what_is_broken_across_lines_is_joined_and_marks_are_read() -> None:
    assert check("It runs without wind, not fast.", source="It runs with- out wind, not fast.")
    assert check('He says "stop" to him.', source="He says ''stop'' to him.")


@pytest.mark.parametrize(("was", "said"), [("now", "not"), ("north", "south"), ("the cat", "a cat"), ("cat", "dog")])
def test_another_word_is_no_correction(was: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"reword|add nothing"):
        check(f"It is {said} of here, as they say.", source=f"It is {was} of here, as they say.")


def test_text_that_is_broken_everywhere_is_left_alone() -> None:
    source = "tbe hrbour 0f tbe sniall towri"
    assert check("the harbour of the town", source="tbe harbour of the town")
    with pytest.raises(ValueError, match="too much"):
        check("the harbour of the small town", source=source)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("It was -5 degrees.", "It was 5 degrees."),
        ("It is 3.5 metres wide.", "It is 3 5 metres wide."),
        ("They paid 1,250 crowns.", "They paid 1.250 crowns."),
        ("It was a share of 5 % then.", "It was a share of 5 then."),
        ("It costs $5 at the gate.", "It costs 5 at the gate."),
        ("It held from 1912-1914 there.", "It held from 1912 1914 there."),
        ("You cannot swim in the lake.", "You can swim in the lake."),
        ("It is unlawful to swim in it.", "It is lawful to swim in it."),
        ("It is possible to swim in it.", "It is impossible to swim in it."),
        ("We saw Ann and her son there.", "We saw Anna and her son there."),
        ("It stands no where it stood.", "It stands now here it stood."),
        ("Kill him, not spare him.", "Kill him not, spare him."),
    ],
)
def test_signs_of_numbers_names_and_what_negates_are_not_touched(source: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"number|name|reword"):
        check(text, source=source)
    assert check(source, source=source) == source


@pytest.mark.parametrize(
    ("word", "other"),
    [
        ("unusual", "she"),
        ("before", "oil"),
        ("it", "the"),
        ("casks", "sksac"),
        ("oil", "lamp"),
        ("left", "at"),
        ("sold", "and"),
    ],
)
def test_letters_that_two_words_share_do_not_make_them_one(word: str, other: str) -> None:
    with pytest.raises(ValueError, match=r"reword|add|leave"):
        check(f"They said that {other} was there with them.", source=f"They said that {word} was there with them.")


def test_one_dash_is_as_good_as_another() -> None:
    assert check("It stood open 1912\u20131914.", source="lt stood open 1912-1914.")


WORDS = st.lists(st.sampled_from(["the", "old", "tower", "of", "stone", "stands", "quiet", "harbour"]), min_size=5)


@settings(max_examples=60, deadline=None)
@given(words=WORDS, seed=st.integers(0, 999))
def test_spaces_and_hyphens_may_come_and_go(words: list[str], seed: int) -> None:
    rng = random.Random(seed)
    torn = " ".join(w[:2] + "- " + w[2:] if len(w) > 4 and rng.random() < 0.3 else w for w in words)
    assert check(" ".join(words), source=torn) == " ".join(words)


@settings(max_examples=60, deadline=None)
@given(words=WORDS, at=st.integers(0, 999), new=st.sampled_from(["lantern", "pew"]))
def test_a_word_more_or_less_is_always_seen(words: list[str], at: int, new: str) -> None:
    source, at = " ".join(words), at % len(words)
    for changed in ([*words[:at], *words[at + 1 :]], [*words[:at], new, *words[at:]]):
        with pytest.raises(ValueError, match=r"leave|add|reword"):
            check(" ".join(changed), source=source)
