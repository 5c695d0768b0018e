"""Chunks: exact spans, real tokens, structure; sentences: exact and complete."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ingest.conftest import Context, read_all

from gristmill.core.errors import Reject
from gristmill.core.records import Chunk, Document
from gristmill.ingest import chunk
from gristmill.ingest.pieces import Content, Piece, assemble, clean, inline
from gristmill.ingest.sentences import sentence_spans
from gristmill.ingest.stages import ChunkConfig

LOREM = "The mill of Oster Bay grinds {} sacks of rye a day. Dr. Holm keeps its books! Who pays? The guild does. "


def words(text: str) -> int:
    """A tokenizer that counts words, and long words by their length: simple, and never less than one."""
    return sum(1 + len(word) // 12 for word in text.split())


def document(*pieces: Piece, language: str = "en") -> Document:
    parts = assemble(Content("text/plain", list(pieces)))
    return Document(
        path="a.txt",
        title="A",
        text=parts["text"],
        language=language,
        media_type="text/plain",
        pages=[{"number": n, "start": s, "end": e} for n, s, e in parts["pages"]],
        blocks=[{"kind": k, "start": s, "end": e, "level": v} for k, s, e, v in parts["blocks"]],
    )


def cut(source: Document, **options: int) -> list[Chunk]:
    found = chunk.chunks(source, ChunkConfig(kind="ingest.chunk", **options), words)
    for piece in found:
        assert piece.text == source.text[piece.start : piece.end]
        assert piece.tokens == words(piece.text)
        assert all(piece.text[s:e] == piece.text[s:e].strip() != "" for s, e in piece.sentences)
    return found


def test_sections_stay_apart_and_paragraphs_whole() -> None:
    text = LOREM.format(3).strip()
    source = document(
        Piece("heading", "Book", 1, ((0, 1),)),
        Piece("heading", "North", 2),
        *[Piece("paragraph", text)] * 3,
        Piece("heading", "South", 2, ((0, 2),)),
        Piece("paragraph", text),
    )
    first, second, third = cut(source, tokens=50)
    assert (first.headings, second.headings, third.headings) == (
        ("Book", "North"),
        ("Book", "North"),
        ("Book", "South"),
    )
    assert first.text == f"{text}\n\n{text}" and second.text == text and third.text == text
    assert (first.pages, third.pages) == ((1,), (2,))
    assert [first.text[s:e] for s, e in first.sentences][:4] == [
        "The mill of Oster Bay grinds 3 sacks of rye a day.",
        "Dr. Holm keeps its books!",
        "Who pays?",
        "The guild does.",
    ]


def test_short_sections_share_a_chunk_with_their_headings_inside() -> None:
    source = document(
        Piece("heading", "Book", 1),
        Piece("heading", "Part one", 2),
        Piece("heading", "Ropes", 3),
        Piece("paragraph", "Ropes are long."),
        Piece("heading", "Sails", 3),
        Piece("paragraph", "Sails are wide."),
        Piece("heading", "Part two", 2),
        Piece("paragraph", "The end."),
    )
    first, second = cut(source, tokens=50)
    assert first.text == "Ropes\n\nRopes are long.\n\nSails\n\nSails are wide."
    assert first.headings == ("Book", "Part one")
    assert [first.text[s:e] for s, e in first.sentences] == ["Ropes are long.", "Sails are wide."]
    assert second.headings == ("Book", "Part two")


def test_rows_and_items_are_sentences() -> None:
    source = document(Piece("table", "Name: A; Year: 1\nName: B; Year: 2"), Piece("list", "- One. Two.\n  1. three"))
    (only,) = cut(source, tokens=50)
    assert [only.text[s:e] for s, e in only.sentences] == [
        "Name: A; Year: 1",
        "Name: B; Year: 2",
        "One.",
        "Two.",
        "three",
    ]


def test_overlap_repeats_whole_sentences() -> None:
    text = "".join(LOREM.format(n) for n in range(12)).strip()
    first, second, *_ = cut(document(Piece("paragraph", text)), tokens=60, overlap=12)
    shared = text[second.start : first.end]
    assert shared and second.start < first.end and shared.endswith(".") and words(shared) <= 12
    assert second.text.startswith(shared)


def test_text_that_costs_more_together_than_in_pieces_still_fits() -> None:
    source = document(
        Piece("heading", "A", 1),
        *[Piece("paragraph", f"Word {n} of it.") for n in range(8)],
        Piece("heading", "B", 2),
        Piece("paragraph", "The end."),
    )

    def dear(text: str) -> int:
        return words(text) + 9 * text.count("\n\n")

    found = chunk.chunks(source, ChunkConfig(kind="ingest.chunk", tokens=30), dear)
    assert all(c.tokens == dear(c.text) <= 30 for c in found)
    assert "".join(c.text for c in found).count("Word") == 8 and found[-1].text.endswith("The end.")


def test_only_headings_are_no_document(tmp_path: Path) -> None:
    config = ChunkConfig(kind="ingest.chunk", tokens=50)
    with pytest.raises(Reject, match="nothing but headings"):
        asyncio.run(chunk.run(config, document(Piece("heading", "Alone", 1)), Context(tmp_path)))


def test_real_tokens(tmp_path: Path) -> None:
    from gristmill.models.renderer import Renderer
    from gristmill.models.weights import locate

    (tmp_path / "a.md").write_text("# Mill\n\n" + "\n\n".join(LOREM.format(n) * 3 for n in range(20)))
    source = asyncio.run(read_all(tmp_path, "a.md"))["a.md"]
    found = asyncio.run(chunk.run(ChunkConfig(kind="ingest.chunk", tokens=200), source, Context(tmp_path)))
    count = Renderer.load(locate("smollm2-135m-instruct", base=tmp_path)).count
    assert all(100 < c.tokens == count(c.text) <= 200 for c in found)
    assert all(c.headings == ("Mill",) and c.parents == (source.id,) for c in found)


@pytest.mark.parametrize(
    ("language", "text", "sentences"),
    [
        ("zh", "你好。我是学生！你呢？", ["你好。", "我是学生！", "你呢？"]),
        (
            "de",
            "Am 3. Mai kam Dr. Holm z. B. nach Bonn. Er ging.",
            ["Am 3. Mai kam Dr. Holm z. B. nach Bonn.", "Er ging."],
        ),
        ("ar", "مرحبا. كيف حالك؟", ["مرحبا.", "كيف حالك؟"]),
        ("en", "See 😀 e.g. Fig. 3.5. Then  go.", ["See 😀 e.g. Fig. 3.5.", "Then  go."]),
    ],
)
def test_sentences_by_language(language: str, text: str, sentences: list[str]) -> None:
    assert [text[s:e] for s, e in sentence_spans(text, language)] == sentences


kinds = st.sampled_from(["heading", "paragraph", "list", "table", "code"])
texts = st.lists(st.text(min_size=1, max_size=200), min_size=1, max_size=6).map(
    lambda lines: "\n".join(filter(None, map(inline, lines)))
)
piece_lists = st.lists(st.builds(Piece, kinds, texts, st.integers(1, 4)), max_size=12)


@settings(max_examples=200, deadline=None)
@given(piece_lists, st.integers(16, 80), st.integers(0, 20), st.sampled_from(["en", "zh", "und"]))
def test_chunks_hold_everything_within_their_tokens(
    pieces: list[Piece], tokens: int, overlap: int, language: str
) -> None:
    source = document(*pieces, language=language)
    found = cut(source, tokens=tokens, overlap=overlap)
    covered = bytearray(len(source.text))
    for piece in found:
        assert piece.tokens <= tokens
        covered[piece.start : piece.end] = b"\1" * (piece.end - piece.start)
    for block in source.blocks:
        if block.kind != "heading":
            missed = [source.text[at] for at in range(block.start, block.end) if not covered[at]]
            assert "".join(missed).strip() == ""


@given(st.text())
def test_sentences_hold_every_character(text: str) -> None:
    spans = sentence_spans(text, "en")
    end = 0
    for start, stop in spans:
        assert end <= start < stop and text[end:start].strip() == ""
        end = stop
    assert text[end:].strip() == ""


@given(st.text())
def test_clean_text_is_stable_and_storable(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    once.encode()


def test_a_long_line_is_cut_quickly(read_one: Callable[..., Any]) -> None:
    source = read_one("a.txt", b"word " * 200_000 + b"x" * 50_000)
    found = cut(source, tokens=400)
    assert sum(len(c.text) for c in found) > 1_000_000 and max(c.tokens for c in found) <= 400


def test_a_full_stop_inside_a_word_ends_no_sentence() -> None:
    text = "Set it to argparse.SUPPRESS or os.Path. Then call it!"
    assert [text[s:e] for s, e in sentence_spans(text, "en")] == [text[:39], text[40:]]
    assert len(sentence_spans("磨坊在港口。风车在山上。", "zh")) == 2
