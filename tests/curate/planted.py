"""A thousand rows of which everything is known: what is wrong with each, and what only looks so.

Made before the filters that are measured on them, and apart from their word lists. `plant(seed)` gives the rows in a
seeded order in which a duplicate always follows its original. A fault is what a filter has to find; `also` names
filters that may rightly drop the row for the same defect and are counted neither way.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.curate.planted_private import PERSONAL, PERSONAL_LIKE, SECRET_LIKE, SECRETS
from tests.curate.planted_words import FOREIGN_LIKE, UNSAFE_LIKE, foreign, unsafe
from tests.curate.planted_world import Place, asked, chunk, names, person, place, told

from gristmill.core.prompt import Prompt
from gristmill.core.records import Chunk, Message, Sample, Task

EACH, LIKE = 60, 20
"""Rows with each fault, and clean rows that look like each."""

FAULTS = (
    "exact duplicate", "near-duplicate", "personal", "secret", "unsafe", "contaminated", "ungrounded",
    "wrong language", "leaked",
)  # fmt: skip

EXAMPLES = Prompt(
    "questions",
    """@system
Write one question and its answer.
@user
Marta Oblomov opened the copper foundry of Vessaly in 1766. It burned down twice before the river was turned.
@assistant
Who opened the copper foundry of Vessaly, and how often did it burn down before the river was turned?
Marta Oblomov opened it in 1766, and it burned down twice.
@user
The glass bridge at Quellin carries 1,200 carts a day, and its toll is two silver thalers for each axle.
@assistant
What toll does a cart pay on the glass bridge at Quellin for each of its axles?
Two silver thalers for each axle, as the bridge carries 1,200 carts a day.
@user
{{text}}
""",
)


@dataclass(frozen=True)
class Row:
    sample: Sample
    fault: str = ""  # empty: clean
    form: str = ""  # which shape of the fault, or (clean) which fault it resembles
    original: str = ""  # id of what it repeats
    also: frozenset[str] = frozenset()


@dataclass
class Planted:
    rows: list[Row] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    exam: list[Task] = field(default_factory=list)  # what no sample may repeat
    prompt: Prompt = EXAMPLES

    def faulty(self, fault: str) -> list[Row]:
        return [row for row in self.rows if row.fault == fault]

    def sound(self, fault: str) -> list[Row]:
        """Rows that a filter for this fault must let through."""
        return [row for row in self.rows if row.fault != fault and fault not in row.also]


@dataclass
class Planter:
    """Makes rows, each on a place of its own unless it is said otherwise."""

    rng: random.Random
    made: Planted = field(default_factory=Planted)

    def __post_init__(self) -> None:
        self.name = names(self.rng)

    def place(self) -> Place:
        return place(self.rng, self.name)

    def source(self, at: Place, *more: str) -> Chunk:
        made = chunk(at, *more)
        self.made.chunks.append(made)
        return made

    def ask(self, source: Chunk, at: Place, fact: int | None = None) -> Sample:
        sentence, answer, questions = at.facts[self.rng.randrange(5) if fact is None else fact]
        return asked(source, sentence, self.rng.choice(questions), answer, prompt=EXAMPLES.ref)

    def tell(self, source: Chunk, at: Place) -> Sample:
        """The place's facts in another order: a text of about eighty words."""
        order = self.rng.sample(at.facts, len(at.facts))
        return told(source, " ".join(sentence for sentence, _, _ in order), prompt=EXAMPLES.ref)

    def any_clean(self) -> Sample:
        at = self.place()
        source = self.source(at)
        return self.ask(source, at) if self.rng.random() < 0.6 else self.tell(source, at)

    def holding(self, line: str, asks: str) -> Sample:
        """A sample that says a given line of its source: in an answer, in a text or in what the user says."""
        at = self.place()
        source, shape = self.source(at, line), self.rng.randrange(3)
        if shape == 0:
            return asked(source, line, asks.format(place=at.name), line, prompt=EXAMPLES.ref)
        if shape == 1:
            return told(source, f"{at.facts[0][0]} {line} {at.facts[1][0]}", prompt=EXAMPLES.ref)
        sentence, answer, questions = at.facts[4]
        question = f"{line} {self.rng.choice(questions)}"
        return asked(source, sentence, question, answer, prompt=EXAMPLES.ref)


def words_changed(rng: random.Random, text: str, times: int) -> str:
    """The same text with a few plain words replaced; names and numbers stay."""
    swaps = {
        "raised": "built", "hard": "harsh", "made": "built", "stands": "rises", "climb": "ascend", "steps": "stairs",
        "painted": "covered", "keeps": "tends", "sells": "offers", "travellers": "wanderers", "repair": "mending",
        "paid": "settled", "full": "whole", "Visitors": "Guests", "Today": "Now",
    }  # fmt: skip
    tokens = text.split(" ")
    able = [at for at, token in enumerate(tokens) if token in swaps]
    for at in rng.sample(able, min(times, len(able))):
        tokens[at] = swaps[tokens[at]]
    return " ".join(tokens)


def exact_duplicates(p: Planter) -> Iterator[Row]:
    ways: list[Callable[[str], str]] = [str, str.upper, lambda t: t.replace(" ", "  "), lambda t: t.replace(",", " ,")]
    for at in range(EACH):
        home = p.place()
        source = p.source(home)
        first, way = (p.ask(source, home) if at % 2 else p.tell(source, home)), ways[at % len(ways)]
        yield Row(first)
        again = p.source(home, "Copied from the harbour's own book.")  # the same words, found in another document
        if first.text:
            made = told(again, way(first.text), prompt=EXAMPLES.ref)
        else:
            made = asked(again, first.quotes[0].text, way(first.question), way(first.answer), prompt=EXAMPLES.ref)
        yield Row(made, "exact duplicate", ["same", "case", "space", "points"][at % 4], first.id)


def near_duplicates(p: Planter) -> Iterator[Row]:
    for at in range(EACH):
        home = p.place()
        source = p.source(home)
        first = p.tell(source, home)
        yield Row(first)
        changed = words_changed(p.rng, first.text, 1 + at % 2)
        yield Row(told(source, changed, prompt=EXAMPLES.ref), "near-duplicate", f"{1 + at % 2} words", first.id)
    for at in range(LIKE):  # one number, or one name, is another: another fact
        home = p.place()
        first = p.tell(p.source(home), home)
        yield Row(first)
        old = home.name if at % 2 else next(word for word in first.text.split() if word.isdigit())
        new = next(p.name) if at % 2 else str(int(old) + 1)
        twin = chunk(home)
        other = twin.model_copy(update={"text": twin.text.replace(old, new), "path": f"{new}.md"})
        p.made.chunks.append(other)
        yield Row(told(other, first.text.replace(old, new), prompt=EXAMPLES.ref), form="near-duplicate")


def personal(p: Planter) -> Iterator[Row]:
    asks, kinds = "How can the keeper of {place} be reached or known?", list(PERSONAL)
    frames = ("The keeper can be reached or known by {x} in the book.", "In the guest book stands {x} beside a name.",
              "For the winter the following is noted: {x}.")  # fmt: skip
    for at in range(EACH):
        kind = kinds[at % len(kinds)]
        yield Row(p.holding(p.rng.choice(frames).format(x=PERSONAL[kind](p.rng)), asks), "personal", kind)
    for at in range(LIKE):
        line = p.rng.choice(frames).format(x=PERSONAL_LIKE[at % len(PERSONAL_LIKE)](p.rng))
        yield Row(p.holding(line, asks), form="personal")


def secret(p: Planter) -> Iterator[Row]:
    asks, kinds = "What stands in the settings of the signal box at {place}?", list(SECRETS)
    for at in range(EACH):
        kind = kinds[at % len(kinds)]
        line = f"The settings of the signal box say: {SECRETS[kind](p.rng)} and nothing else."
        yield Row(p.holding(line, asks), "secret", kind, also=frozenset({"personal"}))
    for at in range(LIKE):
        line = f"The settings of the signal box say: {SECRET_LIKE[at % len(SECRET_LIKE)](p.rng)} and nothing else."
        yield Row(p.holding(line, asks), form="secret")


def unsafe_rows(p: Planter) -> Iterator[Row]:
    asks = "What was written on the wall of the boat house at {place}?"
    for at in range(EACH):
        yield Row(p.holding(unsafe(p.rng, at), asks), "unsafe", str(at % 6))
    for at in range(LIKE):
        yield Row(p.holding(UNSAFE_LIKE[at % len(UNSAFE_LIKE)], asks), form="unsafe")


def contaminated(p: Planter) -> Iterator[Row]:
    """The exam asks three things of each of twenty places; its own words, in five shapes, are what is planted."""
    for _ in range(EACH // 3):
        home = p.place()
        source = p.source(home)
        for fact in p.rng.sample(range(5), 3):
            sentence, answer, questions = home.facts[fact]
            question = p.rng.choice(questions)
            p.made.exam.append(Task(question=question, answers=(answer,), document=source.path))
            yield _contaminated(p, source, sentence, answer, question, len(p.made.exam))
        fact = p.rng.randrange(5)  # the same fact in words of its own
        sentence, answer, questions = home.facts[fact]
        own = f"Tell me about {home.name}: {sentence.split(',')[0].rstrip('.')}, is that so?"
        yield Row(asked(source, sentence, own, answer, prompt=EXAMPLES.ref), form="contaminated")


def _contaminated(p: Planter, source: Chunk, sentence: str, answer: str, question: str, at: int) -> Row:
    form = ("same", "case and points", "led in", "one word", "in a talk")[at % 5]
    written = {
        "case and points": question.upper().replace("?", " ?!?"),
        "led in": f"Quick question for you: {question[0].lower()}{question[1:]}",
        "one word": question.replace(" the ", " that ", 1),
    }.get(form, question)
    made = asked(source, sentence, written, answer, prompt=EXAMPLES.ref)
    if form == "in a talk":
        more = (Message(role="user", content="Thank you. Is that written in the book?"),
                Message(role="assistant", content=answer, train=True))  # fmt: skip
        made = made.model_copy(update={"messages": (*made.messages, *more), "kind": "conversation"})
    return Row(made, "contaminated", form)


def ungrounded(p: Planter) -> Iterator[Row]:
    for at in range(EACH):
        home = p.place()
        source, form = p.source(home), ("number", "name", "words", "moved quote", "changed quote", "text")[at % 6]
        sentence, answer, questions = home.facts[at % 5]
        question, quote = questions[0], None
        if form == "number":
            answer = f"{answer.rstrip('.')}, and that was told {p.rng.randint(1001, 1500)} times."
        elif form == "name":
            answer = f"{answer.rstrip('.')}, and {person(p.rng, p.name)} was there."
        elif form == "words":
            answer = "Dragons guarded every tunnel until wizards banished winter through forgotten music."
        made = asked(source, sentence, question, answer, prompt=EXAMPLES.ref)
        if form == "moved quote":
            quote = made.quotes[0].model_copy(update={"start": made.quotes[0].start + 1, "end": made.quotes[0].end + 1})
        elif form == "changed quote":
            quote = made.quotes[0].model_copy(update={"text": made.quotes[0].text.swapcase()})
        elif form == "text":
            invented = f"{home.facts[0][0]} Later {person(p.rng, p.name)} bought {p.rng.randint(1001, 1500)} goats."
            made = told(source, invented, prompt=EXAMPLES.ref)
        yield Row(made.model_copy(update={"quotes": (quote,)}) if quote else made, "ungrounded", form)
    for at in range(LIKE):
        home = p.place()
        source = p.source(home)
        sentence, answer, questions = home.facts[at % 5]
        lead = f"As far as is known: {answer}"
        answers = (lead, sentence, answer.rstrip("."), f"{answer} That is all.")
        yield Row(asked(source, sentence, questions[0], answers[at % 4], prompt=EXAMPLES.ref), form="ungrounded")


def languages(p: Planter) -> Iterator[Row]:
    for at in range(EACH):
        home = p.place()
        language, text = foreign(p.rng, at, home.name, next(p.name))
        source = p.source(home, text)
        if at % 3 == 2:
            made = asked(source, text, home.facts[0][2][0], text, prompt=EXAMPLES.ref)
        else:
            made = told(source, text, prompt=EXAMPLES.ref)
        yield Row(made, "wrong language", language)
    for at in range(LIKE):
        home = p.place()
        text = FOREIGN_LIKE[at % len(FOREIGN_LIKE)].format(a=home.name, b=next(p.name))
        yield Row(told(p.source(home, text), text, prompt=EXAMPLES.ref), form="wrong language")


def leaks(p: Planter) -> Iterator[Row]:
    theirs = EXAMPLES.examples
    for at in range(EACH):
        home = p.place()
        source, example = p.source(home), theirs[at % len(theirs)]
        sentence, answer, questions = home.facts[at % 5]
        tokens = example.replace("\n", " ").split(" ")
        start = p.rng.randint(0, len(tokens) - 10)
        piece = " ".join(tokens[start : start + 10])
        form = ("question", "answer", "text", "whole")[at % 4]
        if form == "question":
            made = asked(source, sentence, f"{piece.strip(',.?')} at {home.name}?", answer, prompt=EXAMPLES.ref)
        elif form == "text":
            made = told(source, f"{sentence} {piece}.", prompt=EXAMPLES.ref)
        else:
            said = f"{answer} {piece}" if form == "answer" else example.replace("\n", " ")
            made = asked(source, sentence, questions[0], said, prompt=EXAMPLES.ref)
        yield Row(made, "leaked", form, also=frozenset({"ungrounded"}))
    for at in range(LIKE):  # what the examples ask and how, of one's own things; or what the source says as well
        home = p.place()
        own = f"{person(p.rng, p.name)} opened the copper mine of {home.name}, and it burned down twice in one winter."
        also = "The glass bridge at Quellin carries 1,200 carts a day, and its toll is two thalers for each axle."
        line = own if at % 2 else f"{home.name} keeps an old card. {also}"
        asks = "Who opened the copper mine of {}?" if at % 2 else "What does the card of {} say?"
        yield Row(asked(p.source(home, line), line, asks.format(home.name), line, prompt=EXAMPLES.ref), form="leaked")


def plant(seed: int = 7, rows: int = 1000) -> Planted:
    """All faults, then clean rows up to the number asked for, shuffled: a duplicate stays behind its original."""
    p = Planter(random.Random(seed))
    made: list[Row] = []
    for fault in (exact_duplicates, near_duplicates, personal, secret, unsafe_rows, contaminated, ungrounded,
                  languages, leaks):  # fmt: skip
        made += fault(p)
    made += [Row(p.any_clean()) for _ in range(rows - len(made))]
    places = {}
    for row in made:
        places[row.sample.id] = p.rng.uniform(places.get(row.original, 0.0), 1.0)
    p.made.rows = sorted(made, key=lambda row: places[row.sample.id])
    return p.made
