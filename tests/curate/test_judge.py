"""Judges: what they are shown and asked, how votes become a verdict, and how far they agree with people."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.curate.conftest import Context, make_chunk
from tests.fakes.fixtures import FakeServer, fake_server

from gristmill.core.ask import Answer, Model, Parsed, Usage
from gristmill.core.errors import InputError, Reject
from gristmill.core.prompt import Prompt, read_prompt
from gristmill.core.records import Message, Record, Sample
from gristmill.core.store import open_store
from gristmill.core.thoughts import Thought
from gristmill.curate.quality import calibration, judge, score
from gristmill.curate.quality.judge_config import RUBRICS, CalibrationConfig, JudgeConfig
from gristmill.curate.quality.score_config import ScoreConfig
from gristmill.llm.client import Client
from gristmill.llm.spec import OpenAISpec

PROMPTS = Path(judge.__file__).parents[1] / "prompts"
CHUNK = make_chunk("The mill of Orvale was built in 1822 by Ada Brook.")
OTHER = make_chunk("The mill has four floors.", path="floors.md")
SAMPLE = Sample(
    form="chat",
    kind="qa",
    messages=(
        Message(role="user", content="Who built the mill of Orvale?"),
        Message(role="assistant", content="Ada Brook.", train=True),
    ),
    parents=(CHUNK.id, OTHER.id),
)
CHOICES = ["awful", "poor", "good", "incredible"]
MOOD = {"question": "How good is it?", "choices": CHOICES, "passes": CHOICES[2:]}


class Script:
    """Stands at the protocol: keeps what was asked, and says one choice after the other; None is no valid answer."""

    role, identity, context = "judge", "script", None

    def __init__(self, *choices: str | None) -> None:
        self.choices = list(choices)
        self.asked: list[tuple[list[Message], int]] = []

    async def structured(self, messages: Any, schema: Any, *, sample: int = 0, **_: Any) -> Any:
        self.asked.append((list(messages), sample))
        choice = self.choices.pop(0)
        if choice is None:
            raise Reject("invalid answer")
        said = {"choice": choice} | ({"reason": "so it is"} if "reason" in schema.model_fields else {})
        answer = Answer("", "stop", Usage(), f"key{len(self.asked)}", self.identity)
        return Parsed(schema.model_validate(said), answer, (answer.key,))


class Judged(Context):
    def __init__(self, model: Any, *ancestors: Record) -> None:
        super().__init__((CHUNK, OTHER, *ancestors))
        self.script = model

    def model(self, role: str, *, quantization: str | None = None) -> Model:
        model: Model = self.script
        return model

    def prompt(self, name: str) -> Prompt:
        return read_prompt(name, PROMPTS / f"{name}.md")


def config(**more: Any) -> JudgeConfig:
    return JudgeConfig(kind="curate.judge", model="judge", **more)


async def marks_of(script: Script, **more: Any) -> dict[str, Any]:
    (kept,) = await judge.run(config(**more), SAMPLE, Judged(script))
    assert kept.id == SAMPLE.id
    return kept.marks


async def test_a_majority_passes_and_the_votes_are_kept() -> None:
    script = Script("accurate", "partly", "accurate")
    marks = await marks_of(script, checks=["accurate"])
    assert marks["judge_accurate"] == "accurate" and marks["judge_accurate_share"] == 0.6667
    votes = marks["judge"]["accurate"]["votes"]
    assert [(vote["choice"], vote["reason"], vote["call"]) for vote in votes] == [
        ("accurate", "so it is", "key1"),
        ("partly", "so it is", "key2"),
        ("accurate", "so it is", "key3"),
    ]
    assert [sample for _, sample in script.asked] == [0, 1, 2]


async def test_a_second_judge_leaves_the_votes_of_the_first() -> None:
    (once,) = await judge.run(config(checks=["sound"], votes=1), SAMPLE, Judged(Script("sound")))
    (twice,) = await judge.run(config(checks=["relevant"], votes=1), once, Judged(Script("relevant")))
    assert twice.marks["judge"].keys() == {"sound", "relevant"}  # type: ignore[union-attr]


async def test_mostly_right_is_not_right_and_the_reject_says_why() -> None:
    with pytest.raises(Reject, match="judged not accurate") as caught:
        await marks_of(Script("partly", "partly"), checks=["accurate"])
    assert caught.value.detail == "partly: so it is; partly: so it is"


async def test_the_first_failed_check_is_the_last_one_asked() -> None:
    script = Script("leaning", "unclear")
    with pytest.raises(Reject, match="judged not sound"):
        await marks_of(script)
    assert len(script.asked) == 2  # of 3 votes for the first check; none for the other two


async def test_votes_end_once_nothing_can_change() -> None:
    script = Script("accurate", "accurate")
    assert (await marks_of(script, checks=["accurate"]))["judge_accurate_share"] == 1
    assert len(script.asked) == 2
    script = Script("good", "incredible", "incredible")  # passed after two, but not yet how well
    marks = await marks_of(script, checks=["mood"], rubrics={"mood": MOOD})
    assert marks["judge_mood"] == "incredible" and len(script.asked) == 3


@given(
    st.lists(st.sampled_from([*MOOD["choices"], None]), min_size=1, max_size=7), st.sampled_from([0.3, 0.5, 0.6, 1.0])
)
def test_ending_early_never_changes_the_outcome(choices: list[str | None], share: float) -> None:
    rubric = config(checks=["mood"], rubrics={"mood": MOOD}).rubric("mood")
    votes = tuple(judge.Vote(choice, "", "") for choice in choices)
    whole = judge.Tally(rubric, votes, len(votes), share)
    assert whole.passed is not None and whole.settled
    for n in range(1, len(votes)):
        part = judge.Tally(rubric, votes[:n], len(votes), share)
        if part.passed is not None:
            assert part.passed == whole.passed
        if part.settled:
            assert part.ranked[0][0] == whole.ranked[0][0]


@pytest.mark.parametrize(("share", "of", "needed"), [(0.55, 20, 11), (0.28, 25, 7), (0.5, 3, 2), (1.0, 7, 7)])
def test_a_share_of_the_votes_is_counted_exactly(share: float, of: int, needed: int) -> None:
    assert judge.Tally(RUBRICS["sound"], (), of, share).needed == needed


async def test_marking_only_drops_nothing_and_asks_every_check() -> None:
    script = Script("leaning", "leaning", "relevant", "relevant", "wrong", "partly", "wrong")
    marks = await marks_of(script, drop=False)
    assert [marks[f"judge_{check}"] for check in RUBRICS] == ["leaning", "relevant", "wrong"]
    assert [marks["judge"][check]["passed"] for check in RUBRICS] == [False, True, False]


async def test_a_vote_that_is_no_answer_does_not_pass() -> None:
    context = Judged(Script(None, "accurate", None))
    with pytest.raises(Reject, match="judged not accurate"):
        await judge.run(config(checks=["accurate"]), SAMPLE, context)
    assert context.counts["votes with invalid answer"] == 2
    with pytest.raises(Reject, match="no verdict"):
        await marks_of(Script(None, None, None), checks=["accurate"], drop=False)


async def test_each_check_sees_what_it_needs_and_no_more() -> None:
    script = Script("sound", "relevant", "accurate")
    await marks_of(script, votes=1, temperature=0)
    sound, relevant, accurate = (asked[-1].content for asked, _ in script.asked)
    assert "Who built the mill of Orvale?" in sound and "Ada Brook." not in sound
    assert "Ada Brook." in relevant and CHUNK.text not in relevant
    assert CHUNK.text in accurate and OTHER.text in accurate and "- partly: some of it" in accurate


async def test_a_question_is_judged_with_the_talk_before_it_and_an_answer_without_its_thoughts() -> None:
    thought = Thought("The mill comes to mind.", "In 1822.").joined()
    more = (Message(role="user", content="And when?"), Message(role="assistant", content=thought, train=True))
    talk = SAMPLE.model_copy(update={"messages": (*SAMPLE.messages, *more), "marks": {"thoughts": True}})
    script = Script("relevant")
    await judge.run(config(checks=["relevant"], votes=1), talk, Judged(script))
    shown = script.asked[0][0][-1].content
    assert "assistant: Ada Brook.\n\nuser: And when?" in shown and "Answer:\nIn 1822." in shown


async def test_a_check_that_cannot_see_what_it_needs_drops_the_sample() -> None:
    alone = SAMPLE.model_copy(update={"parents": ()})
    with pytest.raises(Reject, match="no source to judge by"):
        await judge.run(config(checks=["accurate"]), alone, Judged(Script()))


async def test_only_borderline_samples_are_judged() -> None:
    only = {"mark": "quality", "low": 0.3, "high": 0.7}
    for value, asked in ((0.2, 0), (0.3, 1), (0.7, 1), (0.8, 0), (None, 1)):
        script = Script("sound")
        sample = SAMPLE.marked(quality=value) if value is not None else SAMPLE
        (kept,) = await judge.run(config(checks=["sound"], votes=1, only=only), sample, Judged(script))
        assert len(script.asked) == asked and ("judge" in kept.marks) == bool(asked)


@pytest.mark.parametrize(("low", "asked"), [(0.0, 1), (0.99, 0)])
async def test_local_scores_say_what_is_borderline(low: float, asked: int) -> None:
    context, script = Judged(Script()), Script("sound")
    (scored,) = await score.run(ScoreConfig(kind="curate.score", keep={}), SAMPLE, context)  # type: ignore[arg-type]
    only = {"mark": "scores.lix", "low": low, "high": low + 50 * asked}
    await judge.run(config(checks=["sound"], votes=1, only=only), scored, Judged(script))  # type: ignore[arg-type]
    assert len(script.asked) == asked


async def test_a_share_of_the_samples_is_judged_the_same_every_time() -> None:
    judged = []
    for _ in range(2):
        script, context = Script(*["sound"] * 200), Judged(None)
        context.script = script
        for n in range(200):
            sample = SAMPLE.model_copy(update={"kind": f"qa{n}"})
            (kept,) = await judge.run(config(checks=["sound"], votes=1, sampled=0.25), sample, context)
            judged.append("judge" in kept.marks)
    assert judged[:200] == judged[200:] and 30 <= sum(judged[:200]) <= 70


@pytest.mark.parametrize(
    "wrong",
    [
        {"checks": ["kind"]},
        {"rubrics": {"mood": MOOD}},
        {"checks": ["sound", "sound"]},
        {"temperature": 0},
        {"checks": ["mood"], "rubrics": {"mood": {**MOOD, "passes": ["superb"]}}},
        {"checks": ["mood"], "rubrics": {"mood": {**MOOD, "passes": CHOICES}}},
        {"only": {"mark": "quality", "low": 1, "high": 0}},
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_asked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        config(**wrong)


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with fake_server() as running:
        yield running


@pytest.fixture
async def asked(tmp_path: Path, server: FakeServer) -> AsyncIterator[Model]:
    store = open_store(tmp_path / "store.db")
    client = Client(store, workspace=tmp_path, run="r")
    spec: Any = OpenAISpec(provider="openai", model="m", base_url=server.url)
    yield client.model("judge", spec, stage="judge")
    await client.close()
    store.close()


async def test_through_the_real_client_every_verdict_is_one_of_the_choices(asked: Model, server: FakeServer) -> None:
    server.reset()
    marks = await marks_of(asked, drop=False)  # type: ignore[arg-type]
    for check, rubric in RUBRICS.items():
        assert marks[f"judge_{check}"] in rubric.choices
        assert all(vote["choice"] in rubric.choices and vote["call"] for vote in marks["judge"][check]["votes"])


async def test_an_answer_against_the_schema_is_no_vote(asked: Model, server: FakeServer) -> None:
    server.reset(pinvalid=1.0, bad_until_turns=99)
    with pytest.raises(Reject, match="no verdict"):
        await marks_of(asked, drop=False, votes=1)  # type: ignore[arg-type]


def rated(passed: bool, review: str, n: int, check: str = "accurate") -> list[Sample]:
    sample = SAMPLE.marked(judge={check: {"passed": passed, "votes": []}}, review=review)
    return [sample.model_copy(update={"kind": f"{passed}{review}{i}"}) for i in range(n)]


def test_agreement_has_an_interval_and_kappa() -> None:
    pool = [
        *rated(True, "approve", 20),
        *rated(True, "reject", 3),
        *rated(False, "approve", 5),
        *rated(False, "edit", 12),
    ]
    settings = CalibrationConfig(kind="curate.calibration")
    (report,) = calibration.run(settings, [*pool, SAMPLE, *rated(True, "", 0)], Judged(None))
    line = report.data["checks"]["accurate"]  # type: ignore[union-attr]
    assert (line["samples"], line["both"], line["judge"], line["person"], line["neither"]) == (40, 20, 3, 5, 12)
    assert line["agreement"] == 0.8 and (line["low"], line["high"]) == (0.6524, 0.895)
    assert line["kappa"] == 0.5844  # (0.8 - 0.51875) / (1 - 0.51875)
    assert set(report.parents) == {sample.id for sample in pool}


def test_a_judge_that_always_passes_agrees_by_chance_alone() -> None:
    half = [*rated(True, "approve", 10), *rated(True, "reject", 10)]
    assert calibration.agreement(half, ["accurate"]).kappa == 0
    assert calibration.agreement(rated(True, "approve", 5), ["accurate"]).kappa is None


def test_nothing_to_compare_is_an_error() -> None:
    settings = CalibrationConfig(kind="curate.calibration")
    with pytest.raises(InputError, match="judged and reviewed"):
        list(calibration.run(settings, [SAMPLE.marked(review="approve")], Judged(None)))
    with pytest.raises(InputError, match="not asked"):
        asked = CalibrationConfig(kind="curate.calibration", checks=["sound"])
        list(calibration.run(asked, rated(True, "approve", 2), Judged(None)))
