"""Typing errors and other letters, with nothing else moved: what is protected stays, and every span still fits."""

from __future__ import annotations

import random
import time
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.generate.conftest import Context

from gristmill.core.errors import Reject
from gristmill.core.records import Message, Sample
from gristmill.generate.augment import perturb
from gristmill.generate.augment.edits import apply, free, moved
from gristmill.generate.augment.operators import recast, spoil
from gristmill.generate.augment.stages import NOISE, Form, PerturbConfig
from gristmill.generate.wording import places

TEXT = (
    "The screen of the Varn 12 is bright and clear, but the battery of my old one lasted longer. "
    "ask Edda at https://varn.example/help about `reset --all` before you send it back."
)
SCREEN = (4, 10)
GOLDEN = {
    "typos": "Ghe screen of thee Varn 12 is bright and cclear, ubt th e bttery of my old ne lasted ponger. "
    "ask Edda at https://varn.example/help aobut `reset --all` befoee you send it back.",
    "spaces": "The screen o f t he Varn 12 isbright and cl ear, but the batter y of my o ld onelaste dlonger. "
    "a sk Edda a t https://varn.example/help about `reset --all` before you send it back.",
    "word_swap": "The screen the of Varn 12 bright is clear and, the but of battery my one old longer lasted. "
    "ask Edda at https://varn.example/help about `reset --all` before send you back it.",
    "random_case": "The screen of the Varn 12 is bright and clear, BUt THe batTerY OF my old one lASTEd longer. "
    "aSK Edda at https://varn.example/help abouT `reset --all` BeFoRe you send IT bAck.",
    "sentence": "The screen of the Varn 12 is bright and clear, but the battery of my old one lasted longer. "
    "Ask Edda at https://varn.example/help about `reset --all` before you send it back.",
    "camel": "the screen ofThe Varn 12 isBrightAndClear, butTheBatteryOfMyOldOneLastedLonger. "
    "ask Edda at https://varn.example/help about `reset --all` beforeYouSendItBack.",
}
"""What seed 7 gives, at a share of 0.4."""
FORMS = get_args(Form)


def labelled(**more: Any) -> Sample:
    return Sample(form="labelled", kind="reviews", text=TEXT, label="positive", spans=(SCREEN,), **more)


def config(**more: Any) -> PerturbConfig:
    return PerturbConfig(kind="generate.perturb", **more)


async def variants(sample: Sample, **more: Any) -> list[Sample]:
    context = Context(None, sample)
    return await perturb.run(config(**more), sample, context)


@pytest.mark.parametrize("way", [*NOISE, *FORMS])
async def test_each_way_changes_the_text_and_nothing_that_is_protected(way: str) -> None:
    [made] = await variants(labelled(), ways=[way])
    assert made.text != TEXT and made.label == "positive"
    assert [made.text[start:end] for start, end in made.spans] == ["screen"]
    for kept in ("12", "https://varn.example/help", "`reset --all`", "Varn", "Edda"):
        assert kept in made.text
    assert made.marks["perturbed"] == way and made.marks["variant_of"] == labelled().id
    assert made.parents == (labelled().id,)


async def test_the_same_seed_gives_the_same_text_and_another_record_another() -> None:
    one, again = [await variants(labelled(), ways=["typos"], copies=3, share=0.4) for _ in range(2)]
    assert [v.id for v in one] == [v.id for v in again] and len({v.text for v in one}) == 3
    other = await variants(labelled(marks={"split": "train"}), ways=["typos"], copies=3, share=0.4)
    assert [v.text for v in other] == [v.text for v in one]  # marks are not content
    moved_on = await variants(labelled(parents=("x",)), ways=["typos"], copies=3, share=0.4)
    assert [v.text for v in moved_on] != [v.text for v in one]


@pytest.mark.parametrize("way", GOLDEN)
async def test_a_seed_gives_what_it_always_gave(way: str) -> None:
    [made] = await variants(labelled(), ways=[way], **({"share": 0.4} if way in NOISE else {}))
    assert made.text == GOLDEN[way]


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet="abÄ. B'-犬\n", max_size=30), data=st.data())
def test_open_is_what_meets_nothing_guarded_and_no_border(text: str, data: st.DataObject) -> None:
    at = st.integers(0, len(text))
    spans = [(min(one), max(one)) for one in data.draw(st.lists(st.tuples(at, at), max_size=4))]
    phrases = data.draw(st.lists(st.sampled_from(["a", "ab", "a.a", "a'b", ".B", "犬", "Ä-b"]), max_size=4))
    room = free(text, words=phrases, spans=spans, borders=data.draw(st.lists(at, max_size=3)))
    assert sorted(room.guarded) == sorted(
        [*spans, *(hit for each in dict.fromkeys(phrases) for hit in places(text, each))]
    )
    for start in range(len(text)):
        for end in range(start + 1, len(text) + 1):
            met = any(start < other_end and other < end for other, other_end in room.guarded)
            assert room.open(start, end) == (not met and not any(start < border < end for border in room.borders))


async def test_a_long_text_is_read_once() -> None:
    """In time that grows with the text, not with its square: that would be minutes."""
    names = " ".join(f"it is Varn{n % 2000}, good and bright{'.' * (n % 3)}" for n in range(8_000))
    sample = Sample(form="text", kind="t", text=f"{names} {'x' * 50_000}")
    began = time.process_time()
    assert len(await variants(sample, ways=["typos", "word_swap", "sentence", "snake"], share=0.5)) == 4
    assert time.process_time() - began < 20


async def test_the_share_is_the_share_of_words() -> None:
    words = " ".join(["lantern"] * 200)
    sample = Sample(form="text", kind="t", text=words)
    for share in (0.05, 0.5):
        [made] = await variants(sample, ways=["keyboard"], share=share)
        assert sum(word != "lantern" for word in made.text.split()) == share * 200


async def test_what_is_held_out_has_no_variants() -> None:
    test = labelled(marks={"split": "test"})
    with pytest.raises(Reject, match="of another split"):
        await variants(test)
    [made] = await variants(test, splits=["test"])
    assert made.marks["split"] == "test"


async def test_of_a_chat_only_the_named_roles_are_touched_and_masks_move_along() -> None:
    answer = "It lands beside the old slipway. Well spoken."
    mask = (answer.index("old"), answer.index("."))
    messages = (
        Message(role="system", content="You are a patient keeper of lighthouses."),
        Message(role="user", content="Where does the ferry land tonight?"),
        Message(role="assistant", content=answer, train=(mask,)),
    )
    chat = Sample(form="chat", kind="qa", messages=messages)
    [made] = await variants(chat, ways=["spaces"], share=0.3)
    assert made.messages[0] == messages[0] and made.messages[2] == messages[2]
    assert made.messages[1].content != messages[1].content
    [made] = await variants(chat, ways=["word_repeat"], roles=["assistant"], share=1.0)
    [(start, end)] = made.messages[2].train  # type: ignore[misc]
    assert made.messages[:2] == messages[:2] and made.messages[2].content[start:end] == "old old slipway slipway"


async def test_nothing_to_touch_is_a_reject() -> None:
    with pytest.raises(Reject, match="nothing to touch"):
        await variants(Sample(form="text", kind="t", text="1234 5678"))


def test_names_are_words_with_a_capital_inside_a_sentence_and_not_all_of_it() -> None:
    room = free("The screen of this phone is bright, says Edda.", protect=["names"])
    words = [room.text[start:end] for start, end in room.words]
    assert " ".join(words) == "The screen of this phone is bright says"


def test_an_option_that_would_do_nothing_is_refused() -> None:
    for wrong in ({"ways": ["upper"], "share": 0.2}, {"ways": ["snake"], "copies": 2}, {"ways": ["swap", "swap"]}):
        with pytest.raises(ValidationError):
            config(**wrong)


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet="abcé ÄB.,'12\n`_", max_size=60), data=st.data(), seed=st.integers(0, 9))
def test_spans_and_masks_hold_the_same_words_after_any_edit(text: str, data: st.DataObject, seed: int) -> None:
    ends = sorted(data.draw(st.lists(st.integers(0, len(text)), min_size=4, max_size=4)))
    span, mask = (ends[0], ends[1]), (ends[2], ends[3])
    room = free(text, protect=["numbers"], spans=[span], borders=mask)
    for way in (*NOISE, *FORMS):
        edits = spoil(room, way, share=0.5, rng=random.Random(seed)) if way in NOISE else recast(room, way)
        made = apply(text, edits)
        [(start, end)] = moved([span], edits)
        assert made[start:end] == text[slice(*span)]
        [(start, end)] = moved([mask], edits)
        inside = [edit for edit in edits if mask[0] <= edit.start and edit.end <= mask[1]]
        assert (
            made[:start] + made[end:]
            == apply(text, [e for e in edits if e not in inside])[:start]
            + (apply(text, [e for e in edits if e not in inside])[start + mask[1] - mask[0] :])
        )
        assert sum(letter.isdigit() for letter in made) == sum(letter.isdigit() for letter in text)
