"""Role play from fiction: who returns is who he was, and a conversation is cut back to what is sound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.fakes.fixtures import FakeServer
from tests.generate.conftest import TEXT, Context, chunk_of
from tests.runs.project import Project

from gristmill.core.ask import Answer, Parsed, Usage
from gristmill.core.errors import ConfigError, Reject
from gristmill.core.records import Draft
from gristmill.generate.fiction import bible, story
from gristmill.generate.fiction.bible import base_name
from gristmill.generate.fiction.repair import Exchange, narrates, repaired
from gristmill.generate.fiction.stages import TRAITS, BibleConfig, StoryConfig
from gristmill.runs.execute import execute
from gristmill.runs.folder import RunFolder
from gristmill.runs.plan import make_plan
from gristmill.runs.workspace import Workspace

CHUNKS = [chunk_of(TEXT[:120]), chunk_of(TEXT[120:240], start=200), chunk_of(TEXT[240:], start=400)]


def card(name: str, at: int = 0, **traits: Any) -> Draft:
    data = {"path": "varn.md", "scene": f"At the lamp, {at}", **dict.fromkeys(TRAITS, "plain"), "name": name, **traits}
    return Draft(kind="row", data=data, parents=(CHUNKS[at].id,))


def told(*cards: Draft, **options: Any) -> list[Any]:
    config = BibleConfig(kind="generate.bible", **options)
    return list(bible.run(config, cards, Context(None, *CHUNKS, *cards)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("Captain Ilse Marren", ("ilse", "marren")),
        ("Ilse Marren II, the Grey", ("ilse", "marren")),
        ("  ILSE   marren (captain)", ("ilse", "marren")),
        ('Tobin "Cough" Hask', ("tobin", "hask")),
        ("Odile the Small", ("odile",)),
        ("Frau Doktor Anna-Lena Groß", ("anna-lena", "gross")),
        ("The Captain", ("captain",)),
        ("Captain", ("captain",)),
        ("Vi", ("vi",)),
        ("The Count of Berg", ("count", "of", "berg")),
        ("Frau von Stolt", ("von", "stolt")),
        ("Ilse von Stolt", ("ilse", "von", "stolt")),
        ("", ()),
        ("...", ()),
    ],
)
def test_a_base_name_is_the_name_alone(name: str, base: tuple[str, ...]) -> None:
    assert base_name(name) == base


def test_who_returns_keeps_the_traits_of_the_earliest_place() -> None:
    later = card("Captain Marren", 2, age="30", likes="noise")
    first = card("Ilse Marren", 0, age="51", likes="silence")
    other = card("Tobin", 1, age="40")
    kept, same, untouched = told(later, first, other)
    assert same is first and untouched is other
    assert (kept.data["age"], kept.data["likes"], kept.data["scene"]) == ("51", "silence", "At the lamp, 2")
    assert kept.parents == (later.id, first.id) and kept.data["name"] == "Captain Marren"


def test_a_part_of_a_name_that_could_be_two_people_is_neither() -> None:
    cards = [card("Ilse Marren", 0, age="51"), card("Tobin Marren", 1, age="9"), card("Marren", 2, age="77")]
    assert told(*cards) == cards


def test_two_people_of_one_title_or_one_first_name_are_two() -> None:
    for pair in (
        ("Count of Berg", "Count of Thal"),
        ("Ilse de Winter", "Ilse Marren"),
        ("Graf von Berg", "Graf von Thal"),
    ):
        cards = [card(name, at, age=str(at)) for at, name in enumerate(pair)]
        assert told(*cards) == cards


def test_a_title_tells_a_man_from_his_wife() -> None:
    him, her = card("Mr Marren", 0, age="51"), card("Mrs. Marren", 1, age="40")
    again = card("the old Mrs Marren", 2, age="9")
    assert [one.data["age"] for one in told(him, her, again)] == ["51", "40", "40"]
    assert [one.data["age"] for one in told(him, card("Captain Marren", 1, age="9"))] == ["51", "51"]


def test_names_are_compared_within_a_book() -> None:
    here, there = card("Ilse", 0, age="51"), card("Ilse", 1, age="12", path="other.md")
    assert told(here, there) == [here, there]
    assert [one.data["age"] for one in told(here, there, within=None)] == ["51", "51"]


def test_a_card_without_a_name_is_dropped() -> None:
    assert [one.reason for one in told(card(" ?! "))] == ["no name"]


def test_columns_that_no_card_has_are_refused_free(tmp_path: Any) -> None:
    known = frozenset({"name", "path", "scene", "age"})
    bible.fields(BibleConfig(kind="generate.bible", traits=["age"]), tmp_path, known)
    with pytest.raises(ConfigError, match="no hat"):
        bible.fields(BibleConfig(kind="generate.bible", traits=["age", "hat"]), tmp_path, known)
    with pytest.raises(ConfigError, match="no occupation"):
        story.fields(StoryConfig(kind="generate.story", model="w", card=["name", "occupation"]), tmp_path, known)


GOOD = [
    Exchange("Who lit the lamp?", "I did."),
    Exchange("Why?", "*shrugs* It was dark!"),
    Exchange("And now?", "Now I sleep."),
]


@pytest.mark.parametrize(
    ("last", "left"),
    [
        (Exchange("And now?", "Now I sleep, and then"), 2),  # breaks off
        (Exchange("And now?", "I did."), 2),  # said before
        (Exchange("Which passage you have for me is the voice of the book?", "None."), 2),  # of its task
        (Exchange("*sighs* So you say that now I sleep below the old lamp?", "So now I sleep below the old lamp."), 2),
        (Exchange("And now?", "It was dark, so I went up and lit it!"), 3),  # a few words of it were
        (Exchange("And now?", " and so on" * 60), 2),  # too long
        (Exchange("And now?", "Fine.\nUser: I see."), 2),  # speaks for the user
        (Exchange("Odile: I know.", "Fine."), 2),  # the user speaks as the character
        (Exchange("", "Fine."), 2),
        (Exchange("And now?", "Now I sleep.\n\nNote: The story ends here."), 3),
        (Exchange("User: And now?", "Odile Fenn: Now I sleep."), 3),
        (Exchange("And now?", "Narrator: She smiles.\nOdile: Now I sleep."), 3),
        (Exchange("User: And now?", "Fenn: Now I sleep."), 3),
    ],
)
def test_a_conversation_is_cut_back_to_what_is_sound(last: Exchange, left: int) -> None:
    kept = repaired([*GOOD[:2], last], name="Odile Fenn", words=100)
    assert len(kept) == left and kept[:2] == GOOD[:2]
    assert not any(word in f"{e.user} {e.reply}" for e in kept for word in ("Note", "User:", "Narrator:", "Odile"))


def test_words_that_only_begin_as_a_remark_does_are_the_characters_own() -> None:
    said = [Exchange("What is your work?", "Note-taking, sir.\nNote the colour of the sea: it is green.")]
    assert repaired(said, name="Captain Odile Fenn", words=100) == said


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Ilse Marren nods slowly.", True),
        ("*Ilse looks up* What is it?", True),
        ("The captain Ilse says no.", False),
        ("Ilse, what is it?", False),
        ("Ilse Marren? Is that you?", False),
        ("*looks up* What is it?", False),
        ("I am Ilse Marren.", False),
    ],
)
def test_a_message_says_and_does_not_tell(text: str, told: bool) -> None:
    assert narrates(text, "Ilse Marren") is told and not narrates(text, "")


MESSAGES = st.text(st.sampled_from("ab.!:* \n"), max_size=12) | st.sampled_from(
    ["I did.", "User: no", "Note: x", "Ann: yes."]
)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.builds(Exchange, MESSAGES, MESSAGES), max_size=6))
def test_a_repaired_conversation_is_sound_for_good(exchanges: list[Exchange]) -> None:
    once = repaired(exchanges, name="Ann", words=5)
    assert repaired(once, name="Ann", words=5) == once and len(once) <= len(exchanges)
    said = [text for e in once for text in (e.user, e.reply)]
    assert len(set(said)) == len(said) and all(text.strip() for text in said)


def config(**options: Any) -> StoryConfig:
    return StoryConfig(kind="generate.story", model="writer", **options)


class Speaker:
    """Stands at the protocol; what it says is a function of the number of the message."""

    role, identity = "writer", "speaker"

    def __init__(self, says: Callable[[int], str]) -> None:
        self.says = says
        self.asked: list[Any] = []

    async def ask(self, messages: Any, parse: Any, *, sample: int = 0, **_: Any) -> Any:
        self.asked.append(messages)
        try:
            value = parse(self.says(sample))
        except ValueError as error:
            raise Reject("invalid answer", str(error)) from error
        return Parsed(value, Answer(str(value), "stop", Usage(), f"key{sample}", self.identity), (f"key{sample}",))

    async def structured(self, messages: Any, schema: Any, **options: Any) -> Any:
        return await self.ask(messages, schema.model_validate_json, **options)


async def test_a_whole_conversation_is_cut_back_and_teaches_the_character() -> None:
    draft = card("Ilse Marren", 0, likes=["salt", "silence"])
    turns = [*map(vars, GOOD), {"user": "And then?", "reply": "Then I"}]
    context = Context(Speaker(lambda _: orjson.dumps({"exchanges": turns}).decode()), CHUNKS[0], draft)  # type: ignore[arg-type]
    [sample] = await story.run(config(), draft, context)
    assert [m.content for m in sample.messages[1:]] == [text for e in GOOD for text in (e.user, e.reply)]
    assert [m.train for m in sample.messages] == [False, *[False, True] * 3]
    assert context.counts["exchanges cut off"] == 1 and sample.parents == (draft.id,)
    with pytest.raises(ValidationError):
        story.schema(2, 10).model_validate({"exchanges": turns})


async def test_message_by_message_for_small_models() -> None:
    draft = card("Ilse Marren", 0, likes=["salt", "silence"])
    speaker = Speaker(lambda n: f"{'Ilse' if n % 2 else 'User'}: This is message {n}.")
    context = Context(speaker, CHUNKS[0], draft)  # type: ignore[arg-type]
    [sample] = await story.run(config(ask="line", exchanges=3, source=True, language="de"), draft, context)
    system, *talk = sample.messages
    assert system.content.splitlines()[0] == "Name: Ilse Marren" and "Likes: salt, silence" in system.content
    assert [m.role for m in talk] == ["user", "assistant"] * 3 and [m.train for m in talk] == [False, True] * 3
    assert talk[1].content == "This is message 1." and sample.language == "de" and sample.kind == "roleplay"
    assert sample.origin and sample.origin.calls == tuple(f"key{n}" for n in range(6))
    assert CHUNKS[0].text in sample.quotes[0].text or sample.quotes[0].text in CHUNKS[0].text
    told, *talk = speaker.asked[-1]
    assert "for its voice:\n" in told.content and CHUNKS[0].text[:40] in told.content
    assert "You are: Ilse Marren" in told.content and "Write in: German" in told.content
    sides = ["user", "assistant"] * 2 + ["user"]  # to each side its own words are the assistant's
    assert [(m.role, m.content) for m in talk] == [(side, f"This is message {n}.") for n, side in enumerate(sides)]
    told, opening, *talk = speaker.asked[-2]
    assert "You are: user" in told.content and opening.role == "user" and "Ilse Marren" in opening.content
    sides = ["assistant", "user"] * 2
    assert [(m.role, m.content) for m in talk] == [(side, f"This is message {n}.") for n, side in enumerate(sides)]


async def test_a_card_that_was_made_from_no_text_has_its_story_too() -> None:
    draft = card("Ilse Marren").model_copy(update={"parents": ()})
    speaker = Speaker(lambda n: f"This is message {n}.")
    [sample] = await story.run(config(ask="line", source=True), draft, Context(speaker, draft))  # type: ignore[arg-type]
    assert sample.quotes == () and sample.language == "en" and "for its voice" not in speaker.asked[0][0].content


async def test_a_conversation_that_ends_too_soon_is_a_reject() -> None:
    draft = card("Ilse", 0)
    context = Context(Speaker(lambda n: "The same." if n > 1 else f"This is {n}."), CHUNKS[0], draft)  # type: ignore[arg-type]
    with pytest.raises(Reject, match="story too short"):
        await story.run(config(ask="line"), draft, context)
    assert context.counts["messages with invalid answer"] == 1


async def test_a_story_ends_before_a_line_about_its_own_task() -> None:
    draft = card("Ilse")
    said = {4: "Please give me the passage you would like to use for the voice of the book."}
    context = Context(Speaker(lambda n: said.get(n, f"This is message {n}.")), CHUNKS[0], draft)  # type: ignore[arg-type]
    [sample] = await story.run(config(ask="line", exchanges=4), draft, context)
    assert [message.content for message in sample.messages[1:]] == [f"This is message {n}." for n in range(4)]


async def test_a_card_with_a_hole_is_a_reject() -> None:
    draft = card("Ilse", 0, occupation="")
    with pytest.raises(Reject, match="no value for occupation"):
        await story.run(config(), draft, Context(Speaker(str), CHUNKS[0], draft))  # type: ignore[arg-type]


def test_each_phase_runs_by_itself_and_nothing_is_asked_twice(tmp_path: Path, fake: FakeServer) -> None:
    """The cards today, the stories tomorrow: the second recipe finds the first one's cards in the store."""
    project = Project(tmp_path)
    project.add("Orvale", "Tessmoor")
    columns = {name: {"maxLength": 40} for name in ("name", "scene", *TRAITS)}
    stages = {
        **dict.fromkeys(("facts", "cloze", "clean")),
        "cards": {"kind": "generate.ask", "model": "writer", "prompt": "{{title}}: {{text}}", "fields": columns},
        "bible": {"kind": "generate.bible"},
    }

    def records(name: str) -> list[Any]:
        outcome = execute(make_plan(project.recipe(fake.url, stages=stages)), Workspace(project.workspace))
        return list(RunFolder(outcome.folder).outputs()[name])

    cards, asked = records("bible"), fake.stats()["calls"]
    assert len(cards) == asked > 1
    tale = {"kind": "generate.story", "model": "writer", "ask": "line", "exchanges": 2, "least": 1}
    stages["stories"] = {**tale, "max_failures": 1.0}
    assert records("stories") and records("bible") == cards
    assert 0 < fake.stats()["calls"] - asked <= 2 * 2 * 2 * len(cards)
    assert {*fake.stats()["answered"].values()} == {1}
