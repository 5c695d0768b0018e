"""The gates read what a talk claims: every answer that is learned, without its thoughts and its citation."""

from __future__ import annotations

from typing import Any

import pytest

from gristmill.core.records import Message
from gristmill.curate import converse, filter, ground
from gristmill.curate.stages import ConverseConfig, FilterConfig, GroundConfig

SOURCE = "The mill was built by Anna Weber in 1720 and has three sails."
ASKED, GOOD, BAD = "Who built the mill?", "The mill was built by Anna Weber.", "The mill was built by Otto Kranz."


def said(*turns: tuple[str, str, bool]) -> tuple[Message, ...]:
    pairs = [(Message(role="user", content=q), Message(role="assistant", content=a, train=t)) for q, a, t in turns]
    return tuple(message for pair in pairs for message in pair)


def gates(world: Any, messages: tuple[Message, ...], **marks: Any) -> tuple[str, str]:
    chunk = world.chunk(SOURCE)
    sample = world.qa(ASKED, GOOD, chunk, marks=marks).model_copy(update={"messages": messages})
    context = world.context([chunk])
    grounded = world.step(ground.run, GroundConfig(kind="curate.ground"), sample, context)
    return grounded, world.step(filter.run, FilterConfig(kind="curate.filter"), sample, context)


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([(ASKED, BAD, True), (ASKED, GOOD, True)], "name not in quote"),
        ([(ASKED, BAD, False), (ASKED, GOOD, True)], ""),
        ([(ASKED, GOOD, True), (ASKED, BAD, False)], ""),
    ],
)
def test_every_answer_that_is_learned_is_held_against_the_quotes(world: Any, turns: Any, reason: str) -> None:
    assert gates(world, said(*turns))[0] == reason


def test_thoughts_are_no_claim_and_no_role_marker_but_only_where_they_are_marked(world: Any) -> None:
    thoughtful = said((ASKED, f"I recall a page on Lena's boats, and one on mills.\n\nAnswer: {GOOD}", True))
    assert gates(world, thoughtful, thoughts=True) == ("", "")
    assert gates(world, thoughtful) == ("name not in quote", "role marker")
    wrong = said((ASKED, f"I recall a page.\n\nAnswer: {BAD}", True))
    assert gates(world, wrong, thoughts=True)[0] == "name not in quote"


def test_the_number_of_a_cited_passage_is_no_claim(world: Any) -> None:
    assert gates(world, said((ASKED, f"{GOOD} [7]", True)), retrieval="found")[0] == ""
    assert gates(world, said((ASKED, f"{GOOD} [7]", True)))[0] == "number not in quote"
    assert gates(world, said((ASKED, f"{GOOD} [7] 8", True)), retrieval="found")[0] == "number not in quote"


def passages(world: Any, number: int) -> Any:
    chunk = world.chunk(f"Place {number} is here.", path=f"{number}.md")
    turn = said((f"Where is {number}?", f"Here, in {number}.", True))
    system = Message(role="system", content=f"[1] passage {number}")
    marks = {"split": "train", "thoughts": number == 1, "retrieval": "missed" if number % 2 else "found"}
    return world.qa("x?", "y", chunk, marks=marks).model_copy(update={"messages": (system, *turn)})


@pytest.mark.parametrize("turns", [3, 5])
def test_each_answer_is_learned_below_its_own_passages_and_nowhere_else(world: Any, turns: int) -> None:
    pool = [passages(world, number) for number in range(5)]
    config = ConverseConfig(kind="curate.converse", turns=turns, learn="each")
    done = world.outcome(converse.run(config, pool, world.context(pool))).kept
    by_id = {sample.id: sample for sample in pool}
    assert len(done) == len(pool) and {sample.parents[0] for sample in done} == by_id.keys()
    for sample in done:
        own = by_id[sample.parents[0]]
        assert sample.messages[0] == own.messages[0] and sample.quotes == own.quotes
        assert sample.marks["retrieval"] == own.marks["retrieval"]
        learned = [m.content for m in sample.messages if m.train]
        assert learned == [own.messages[-1].content]
        asked = [m.content for m in sample.messages if m.role == "user"]
        assert set(asked) == {by_id[each].question for each in sample.parents}
        assert len(asked) == len(sample.parents) > 1 and bool(sample.marks.get("thoughts")) is own.marks["thoughts"]
    assert [m.role for sample in done for m in sample.messages].count("system") == len(pool)
