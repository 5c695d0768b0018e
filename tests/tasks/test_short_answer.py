"""The grader is the judge of every claim about learning: examples for each rule, and properties that hold for all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.core.records import Episode, Task
from gristmill.tasks.graders import score
from gristmill.tasks.graders.short_answer import grade


def verdict(answer: str, *references: str, question: str = "Which is it?", finish: str = "stop") -> str:
    return grade(Task(question=question, answers=references), answer=answer, finish=finish).reason


RIGHT = [
    ("1842", "1842"),
    ("It was founded in 1842.", "1842"),
    ("in the year 1,842", "1842"),
    ("1 842", "1842"),
    ("1\u202f842", "1842"),
    ("eighteen forty-two", "1842"),
    ("Twelve bells hang there.", "12"),
    ("12", "twelve"),
    ("one hundred and twenty", "120"),
    ("two dozen", "24"),
    ("3 million", "3,000,000"),
    ("three thousand and five", "3005"),
    ("the third of May", "3 May"),
    ("May 3rd", "3 May"),
    ("on 3 May", "May 3"),
    ("twenty-first", "21st"),
    ("3.50 metres", "3.5 m"),
    ("3,5 m", "3.5 m"),
    ("12 km", "12 kilometers"),
    ("12km", "12 kilometres"),
    ("12", "12 km"),
    ("about 12.", "12 km"),
    ("40%", "40 percent"),
    ("40 per cent", "40%"),
    ("$5", "5 dollars"),
    ("5 °C", "5 degrees C"),
    ("Half past: 14:30.", "14:30"),
    ("The founder was Mara Venn.", "Mara Venn"),
    ("MARA VENN", "Mara Venn"),
    ("**Mara Venn**", "Mara Venn"),
    ("Mara Venn's guild", "Mara Venn"),
    ("Dr. Mara Venn", "Dr Mara Venn"),
    ("J. R. Oll", "J.R. Oll"),
    ("Zoë Müller", "Zoe Muller"),
    ("Straße", "strasse"),
    ("the Iron Bridge", "Iron bridge"),
    ("Iron Bridge", "The Iron Bridge"),
    ("salt & iron", "salt and iron"),
    ("iron and salt", "salt and iron"),
    ("Mara and Tomas", "Tomas and Mara"),
    ("Mara Venn, the miller of Oakby, founded it.", "Mara Venn"),
    ("In 1842, Mara Venn founded the guild so that people could buy or sell grain.", "Mara Venn"),
    ("In 1842, 12 bells were hung.", "12"),
    ("There are 12 bells and 3 towers.", "12"),
    ("No one knows more; it was 1842.", "1842"),
    ("The one who came in 1842", "1842"),
    ("Mara, not Tomas.", "Mara"),
    ("Not Tomas but Mara.", "Mara"),
    ("not in 1841 but in 1842", "1842"),
    ("It was not until 1842.", "1842"),
    ("Not only Mara knew.", "Mara"),
    ("1842 or so", "1842"),
    ("It is made of iron.", "iron"),
    ("None.", "none"),
    ("never", "never"),
    ("Yes, it is not closed.", "yes"),
    ("No.", "no"),
    ("首都是东京。", "东京"),
    ("गाँव कमला", "कमला"),
    ("Vitamin A", "vitamin A"),
    ("In Oakby, Mara Venn founded it.", "Mara Venn"),
    ("The guild was not founded by Tomas, but by Mara.", "Mara"),
    ("½", "1/2"),
    ("No. 12", "12"),
    ("-5 degrees", "-5"),
]
WRONG = [
    ("", "1842", "empty"),
    ("  \n ", "1842", "empty"),
    ("...", "1842", "empty"),
    ("I don't know.", "1842", "not in the answer"),
    ("1843", "1842", "not in the answer"),
    ("11842", "1842", "not in the answer"),
    ("18422", "1842", "not in the answer"),
    ("1842.5", "1842", "not in the answer"),
    ("start", "art", "not in the answer"),
    ("1/2", "2", "not in the answer"),
    ("-5", "5", "not in the answer"),
    ("12 miles", "12 km", "not in the answer"),
    ("twenty-two", "20", "not in the answer"),
    ("A4", "4", "not in the answer"),
    ("It ended in Iron. Bridge was shut.", "Iron Bridge", "not in the answer"),
    ("Mara", "Mara Venn", "not in the answer"),
    ("not in 1842", "1842", "negated"),
    ("It was not 1842", "1842", "negated"),
    ("It wasn't Mara Venn.", "Mara Venn", "negated"),
    ("Mara did not found it.", "Mara", "negated"),
    ("It was never Oakby", "Oakby", "negated"),
    ("Tomas rather than Mara", "Mara", "negated"),
    ("Tomas instead of Mara", "Mara", "negated"),
    ("anyone except Mara", "Mara", "negated"),
    ("Berlin or Paris", "Paris", "several candidates"),
    ("Berlin or Paris", "Berlin", "several candidates"),
    ("Either Berlin or Paris.", "Paris", "several candidates"),
    ("Berlin/Paris", "Paris", "several candidates"),
    ("Berlin / Paris", "Berlin", "several candidates"),
    ("Berlin, Paris", "Paris", "several candidates"),
    ("Berlin, Paris", "Berlin", "several candidates"),
    ("Berlin and Paris", "Paris", "several candidates"),
    ("Berlin and Paris", "Berlin", "several candidates"),
    ("Berlin, Paris and Rome", "Paris", "several candidates"),
    ("It could be Berlin in Germany or Paris in France.", "Berlin", "several candidates"),
    ("possibly Berlin, possibly Paris", "Paris", "several candidates"),
    ("maybe Berlin, maybe Paris", "Berlin", "several candidates"),
    ("1. Berlin\n2. Paris", "Paris", "several candidates"),
    ("- Berlin\n- Paris\n- Rome", "Paris", "several candidates"),
    ("Berlin. Paris.", "Paris", "several candidates"),
    ("It was Berlin. It was Paris.", "Paris", "several candidates"),
    ("Berlin. Actually, it was Paris.", "Berlin", "several candidates"),
    ("It was 1842, no, 1843.", "1842", "several candidates"),
    ("1842 or 1843", "1842", "several candidates"),
    ("1842, 1843, 1844", "1843", "several candidates"),
    ("between 1842 and 1850", "1842", "several candidates"),
    ("1842-1850", "1842", "several candidates"),
    ("1842–1850", "1842", "several candidates"),
    ("10-15", "10", "several candidates"),
    ("12 or 13 bells", "12", "several candidates"),
    ("12 bells, or 13 bells", "12", "several candidates"),
    ("twelve or thirteen", "12", "several candidates"),
    ("Twelve bells. Thirteen bells.", "12", "several candidates"),
    ("iron or copper", "iron", "several candidates"),
    ("iron and copper", "iron", "several candidates"),
    ("copper and iron", "iron", "several candidates"),
    ("iron, copper and tin", "iron", "several candidates"),
    ("Mara and Tomas founded it.", "Mara", "several candidates"),
    ("Tomas Oll and Mara Venn", "Mara Venn", "several candidates"),
    ("salt and iron and gold", "salt and iron", "several candidates"),
    ("There is no doubt: yes", "no", "not in the answer"),
]


@pytest.mark.parametrize(("answer", "reference"), RIGHT)
def test_right(answer: str, reference: str) -> None:
    assert verdict(answer, reference) == "right"


@pytest.mark.parametrize(("answer", "reference", "reason"), WRONG)
def test_wrong(answer: str, reference: str, reason: str) -> None:
    assert verdict(answer, reference) == reason


def test_references_are_alternatives_and_naming_two_is_one_candidate() -> None:
    assert verdict("Mount Ash or Ash Peak", "Mount Ash", "Ash Peak") == "right"
    assert verdict("Ash Peak", "Mount Ash", "Ash Peak") == "right"
    assert verdict("Mount Ash or Brin Peak", "Mount Ash", "Ash Peak") == "several candidates"


def test_what_the_question_says_is_no_candidate() -> None:
    assert verdict("In 1842 there were 12.", "12", question="How many bells hung there in 1842?") == "right"
    assert verdict("Mara and Tomas founded it.", "Mara", question="Who founded it with Tomas?") == "right"
    both = "Mara and Tomas"
    assert verdict(both, "Mara", question="Was it Mara or Tomas?") == "several candidates"
    assert verdict("Mara or Tomas", "Mara", question="Who founded it with Tomas?") == "several candidates"
    assert verdict("Iron was not used.", "iron", question="Which metal was not used?") == "right"


def test_truncated_answers_are_graded_but_a_cut_number_does_not_count() -> None:
    assert verdict("Mara Venn founded the", "Mara Venn", finish="length") == "right"
    assert verdict("It was 18", "18", finish="length") == "not in the answer"
    assert verdict("It was 18 ", "18", finish="length") == "right"


def test_the_score_names_its_episode_and_grader() -> None:
    task = Task(question="When?", answers=("1842",))
    episode = Episode(arm="base", answer="1842", finish="stop", parents=(task.id,))
    got = score(task, episode)
    assert (got.value, got.grader, got.parents) == (1.0, "short_answer", (episode.id,))


NAMES = st.from_regex(r"\A[B-Z][b-df-hj-np-tv-z]{1,3}[aeiou][b-df-hj-np-tv-z]{2,4}\Z").map(lambda s: s + "k")


@given(NAMES)
def test_a_name_is_right_in_any_dress(name: str) -> None:
    for dress in (name, name.upper(), name.lower(), f"  {name}. ", f"“{name}”", f"The {name}", f"It is {name}!"):
        assert verdict(dress, name) == "right"


@given(NAMES, NAMES)
def test_two_names_never_win(one: str, two: str) -> None:
    if one.casefold() == two.casefold():
        return
    forms = ("{} or {}", "{}, {}", "{} and {}", "{}/{}", "either {} or {}", "{}. {}.", "{}\n{}", "1. {}\n2. {}")
    for form in forms:
        assert verdict(form.format(one, two), one) == "several candidates", form
        assert verdict(form.format(two, one), one) == "several candidates", form


@given(st.integers(0, 10**9))
def test_a_number_is_itself_with_and_without_separators_and_nothing_else(value: int) -> None:
    assert verdict(f"{value:,}", str(value)) == "right"
    assert verdict(f"It was {value}.", f"{value:,}") == "right"
    assert verdict(str(value + 1), str(value)) == "not in the answer"
    assert verdict(f"{value} or {value + 1}", str(value)) == "several candidates"
    assert verdict(f"not {value}", str(value)) == "negated"


@given(st.text(max_size=200), st.text(min_size=1, max_size=20), st.text(max_size=50))
def test_no_text_breaks_the_grader(answer: str, reference: str, question: str) -> None:
    for finish in ("stop", "length"):
        assert verdict(answer, reference, question=question or "?", finish=finish)


def test_a_hostile_answer_takes_no_time() -> None:
    for answer in ("1," * 20_000, "1 " * 20_000, "or " * 20_000 + "1842", "Paris, " * 5_000, "a" * 100_000):
        verdict(answer, "1842", "Paris")
