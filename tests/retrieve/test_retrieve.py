"""Searching a set of texts: words, meanings, and both."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.retrieve import Bm25, Index, embed, embed_with, fuse, packed, terms, unpacked

TEXTS = [
    "The lighthouse at Varn was built by the engineer Edda Moor.",
    "The library of Varn holds 912 maps and eleven globes.",
    "Sheep shearing on the island begins in June.",
    "The ferry does not sail when the wind is stronger than eight.",
    "Der Leuchtturm von Varn hat eine rote Laterne.",
]
WORDS = st.text("abcde ", min_size=1, max_size=20)


def test_terms_are_folded_words_and_pairs_of_unspaced_signs() -> None:
    assert terms("Éöl-Mühle, 912 MAPS!") == ["eol", "muhle", "912", "maps"]
    assert terms("灯台守") == ["灯台", "台守"] and terms("灯") == ["灯"]
    assert terms("") == []


def test_bm25_is_the_published_formula() -> None:
    index = Bm25(["a b b", "a c", "c"])
    idf = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    expected = idf * 2 * 2.2 / (2 + 1.2 * (0.25 + 0.75 * 3 / 2))
    assert index.scores("b b b") == pytest.approx([expected, 0, 0])
    assert index.idf("a") < index.idf("b") and index.scores("zebra").tolist() == [0, 0, 0]
    assert Bm25([]).scores("a").size == 0 and Bm25(["", "."]).scores("a").tolist() == [0, 0]


def test_fusion_is_by_rank_alone() -> None:
    assert fuse([[7, 8], [8, 9]]) == pytest.approx({7: 1 / 61, 8: 1 / 62 + 1 / 61, 9: 1 / 62})
    assert fuse([]) == {}


def test_embeddings_know_meaning_beyond_words() -> None:
    who, builder, maps = embed(["Who built the tower?", "An engineer constructed it.", "There are many old maps."])
    assert who @ builder > who @ maps + 0.1


def test_a_vector_has_length_one_and_does_not_depend_on_its_neighbours() -> None:
    texts = [*TEXTS, "", "word " * 5000]
    together = embed(texts)
    assert together.dtype == np.float32 and together.shape == (len(texts), 256)
    lengths = np.linalg.norm(together, axis=1)
    assert lengths == pytest.approx([1, 1, 1, 1, 1, 0, 1])
    for number, text in enumerate(texts):
        assert np.array_equal(embed([text])[0], together[number])
    assert embed([]).shape == (0, 256)


@given(st.lists(WORDS, max_size=90))
@settings(max_examples=10, deadline=None)
def test_order_and_batches_change_no_vector(texts: list[str]) -> None:
    assert np.array_equal(embed(texts)[::-1], embed(texts[::-1]))


def test_vectors_travel_as_marks() -> None:
    vectors = embed(TEXTS)
    back = unpacked([packed(row) for row in vectors])
    assert np.abs(back - vectors).max() < 1e-3 and np.linalg.norm(back, axis=1) == pytest.approx(np.ones(len(TEXTS)))


async def test_a_role_may_embed_instead() -> None:
    class Embedder:
        async def embed(self, texts: list[str]) -> list[list[float]]:
            return [[3.0, 4.0], [0.0, 0.0]]

    model: Any = Embedder()
    assert (await embed_with(model, ["one", "two"])) == pytest.approx(np.array([[0.6, 0.8], [0, 0]]))


@pytest.mark.parametrize(
    ("query", "best"), [("Who built the lighthouse?", 0), ("When are the sheep shorn?", 2), ("rote Laterne", 4)]
)
def test_the_index_finds_what_a_question_is_about(query: str, best: int) -> None:
    hits = Index(TEXTS).search(query, 3)
    assert hits[0].number == best and len(hits) == 3
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


@given(st.permutations(range(len(TEXTS))), st.sampled_from(["Varn", "the wind of June", "912 maps", "xyzzy"]))
@settings(max_examples=15, deadline=None)
def test_what_is_found_does_not_depend_on_the_order_of_the_texts(order: list[int], query: str) -> None:
    shuffled = [TEXTS[number] for number in order]
    found = [shuffled[hit.number] for hit in Index(shuffled).search(query, 5)]
    assert found == [TEXTS[hit.number] for hit in Index(TEXTS).search(query, 5)]


def test_vectors_of_a_role_are_used_as_given() -> None:
    vectors = np.eye(5, dtype=np.float32)
    hits = Index(TEXTS, vectors).search("nothing that stands there", 1, vector=vectors[3])
    assert hits[0].number == 3 and hits[0].cosine == 1
