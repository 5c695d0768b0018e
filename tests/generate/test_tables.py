"""Rows from nothing and what is written for them: drawn by seed, typed, dependent on each other, and counted."""

from __future__ import annotations

import datetime
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.fakes.fixtures import fake_server
from tests.generate.conftest import Context, chunk_of
from tests.runs.project import Project

from gristmill.core.ask import Answer, Parsed, Usage
from gristmill.core.errors import ConfigError, Reject
from gristmill.core.prompt import Prompt, own_prompt
from gristmill.core.records import Draft
from gristmill.generate import ask
from gristmill.generate.answer_rules import check
from gristmill.generate.stages import AskConfig
from gristmill.generate.tables import draw, samples
from gristmill.generate.tables.stages import SampleConfig, TableConfig

RECIPES = Path(__file__).parents[2] / "recipes"
CHUNK = chunk_of()
TEMPLATES = {"reviews": "review", "support": "support", "features": "feature", "chatbot": "chatbot"}
COLUMNS: dict[str, Any] = {
    "number": {"serial": 100},
    "product": ["lamp", "C++ <course> & more"],
    "rating": {"choice": [1, 2, 3], "weights": [1, 1, 2], "balanced": True},
    "price": {"range": [4, 9], "decimals": 2},
    "ordered": {"date": ["2024-01-01", "2024-12-31"]},
    "shipped": {"range": [1, 9], "after": "ordered"},
    "mood": {
        "given": "rating",
        "cases": {1: ["angry"], 2: {"template": "so so about {{product}}"}},
        "otherwise": ["glad"],
    },
    "buyer": {"persona": {"ages": [20, 30], "parts": ["name", "age"]}},
    "title": "{{buyer_name}}: {{product}}",
}


def table(columns: dict[str, Any] | None = None, rows: int = 40) -> TableConfig:
    return TableConfig(kind="generate.table", rows=rows, columns=columns or COLUMNS)


def rows_of(config: TableConfig, *, seed: int = 7) -> list[dict[str, Any]]:
    context = Context(None)
    context.seed = seed
    return [draft.data for draft in draw.run(config, [], context)]  # type: ignore[arg-type]


def test_every_cell_is_of_its_column_and_follows_what_it_depends_on() -> None:
    rows = rows_of(table())
    assert len(rows) == 40 and draw.fields(table(), Path(), None) == rows[0].keys()
    assert rows[0].keys() == {*COLUMNS, "buyer_name", "buyer_age"}
    for number, row in enumerate(rows):
        ordered, shipped = (datetime.date.fromisoformat(row[name]) for name in ("ordered", "shipped"))
        assert row["number"] == 100 + number and row["product"] in ("lamp", "C++ <course> & more")
        assert 4 <= row["price"] <= 9 and round(row["price"], 2) == row["price"]
        assert ordered.year == 2024 and 1 <= (shipped - ordered).days <= 9
        assert row["mood"] == {1: "angry", 2: f"so so about {row['product']}", 3: "glad"}[row["rating"]]
        assert 20 <= row["buyer_age"] <= 30 and row["buyer"].startswith(f"{row['buyer_name']}, {row['buyer_age']}, ")
        assert row["title"] == f"{row['buyer_name']}: {row['product']}"
    assert Counter(row["rating"] for row in rows) == {1: 10, 2: 10, 3: 20}


def test_the_seed_decides_and_neither_more_rows_nor_more_columns_move_a_cell() -> None:
    drawn = {name: column for name, column in COLUMNS.items() if name not in ("rating", "mood")}
    rows = rows_of(table(drawn))
    assert rows_of(table(drawn)) == rows and rows_of(table(drawn), seed=8) != rows
    assert rows_of(table(drawn, rows=60))[:40] == rows
    wider = rows_of(table({**drawn, "extra": [1, 2, 3]}))
    assert [{name: row[name] for name in rows[0]} for row in wider] == rows


def test_no_row_comes_twice_and_a_table_without_so_many_says_so() -> None:
    few = {"a": [1, 2, 3], "b": ["x", "y"]}
    rows = rows_of(table(few, rows=6))
    assert len({orjson.dumps(row) for row in rows}) == 6
    many = {"a": list(range(20)), "b": list(range(15))}
    assert len({orjson.dumps(row) for row in rows_of(table(many, rows=300))}) == 300  # all there are, to the last one
    with pytest.raises(ConfigError, match="no 7 different rows"):
        rows_of(table(few, rows=7))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"a": "{{b}}", "b": "{{a}}"}, "depend on each other"),
        ({"a": "{{nothing}}"}, "depends on nothing"),
        ({"a": {"choice": [1], "range": [1, 2]}}, "choice and range"),
        ({"a": {"choice": [1, 2], "weights": [1]}}, "one number"),
        ({"a": {"range": [2, 1]}}, "lower end"),
        ({"a": {"range": [0.2, 0.8]}}, "no number"),
        ({"größe": [1], "a": "{{größe}} m"}, "letters a to z"),
        ({"a": {"choice": [1, 2], "weights": [1, float("inf")]}}, "finite"),
        ({"d": {"date": ["2024-01-01", "2024-02-01"]}, "a": {"range": [1, 2], "decimals": 1, "after": "d"}}, "days"),
        ({"a": {"date": ["2024-02-01", "2024-01-01"]}}, "lower end"),
        ({"d": {"date": ["9999-12-01", "9999-12-30"]}, "a": {"range": [1, 2], "after": "d"}}, "a leaves the calendar"),
        ({"d": {"date": ["0001-01-02", "2024-12-30"]}, "a": {"range": [-2, 2], "after": "d"}}, "a leaves the calendar"),
        ({"d": {"date": ["2024-01-01", "2024-12-30"]}, "a": {"range": [1, 1e12], "after": "d"}}, "leaves the calendar"),
        (
            {
                "d": {"date": ["2024-01-01", "2024-12-30"]},
                "m": {"range": [0, 2_000_000], "after": "d"},
                "a": {"range": [0, 2_000_000], "after": "m"},
            },
            "a leaves the calendar",
        ),
        (
            {
                "d": {"given": "m", "cases": {"x": {"date": ["9999-01-01", "9999-12-31"]}}, "otherwise": ["none"]},
                "m": ["x"],
                "a": {"given": "m", "cases": {"x": {"range": [1, 9], "after": "d"}}},
            },
            "a leaves the calendar",
        ),
        ({"a": {"range": [1, 1e300]}}, "a number goes from"),
        ({"a": {"range": [-1e300, 1], "decimals": 9}}, "a number goes from"),
        ({"a": {"serial": 10**30}}, "a number goes from"),
        ({"a": [1, 10**30]}, "a number goes from"),
        ({"a": {"serial": 1, "decimals": 2}}, "decimals belongs to range"),
        ({"a": [1], "b": {"given": "a"}}, "`given` needs `cases`"),
        ({"a": {"persona": {"parts": ["age"]}}, "a_age": [1]}, "two columns are called a_age"),
        ({"a": [1], "b": {"given": "a", "cases": {1: {"choice": [1], "balanced": True}}}}, "no place inside"),
        ({}, "at least 1"),
    ],
)
def test_a_table_that_cannot_be_drawn_is_refused(columns: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TableConfig(kind="generate.table", rows=3, columns=columns)


def test_a_case_that_is_missing_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match="b has no case for a = 2"):
        rows_of(table({"a": [1, 2], "n": {"serial": 1}, "b": {"given": "a", "cases": {1: ["x"]}}}))


def test_the_last_day_of_the_calendar_may_be_drawn_and_none_after_it() -> None:
    last = {"d": {"date": ["9999-12-30", "9999-12-30"]}, "a": {"range": [1, 1], "after": "d"}}
    assert rows_of(table(last, rows=1)) == [{"d": "9999-12-30", "a": "9999-12-31"}]
    for written in ({"d": ["9999-12-31"]}, {"y": [9999], "d": "{{y}}-12-31"}):
        with pytest.raises(ConfigError, match="a leaves the calendar: 1 days after 9999-12-31"):
            rows_of(table({**written, "a": {"range": [1, 1], "after": "d"}}, rows=1))
    with pytest.raises(ConfigError, match="a leaves the calendar"):
        rows_of(table({"d": ["2024-12-31"], "a": {"range": [10**12, 10**12], "after": "d"}}, rows=1))


def test_a_number_grows_as_far_as_a_row_holds_it() -> None:
    columns: dict[str, Any] = {"a": {"serial": 2**62 - 1}, "b": {"range": [2**61, 2**61], "after": "a"}}
    assert rows_of(table(columns, rows=1)) == [{"a": 2**62 - 1, "b": 2**62 - 1 + 2**61}]
    with pytest.raises(ConfigError, match="c grows too large"):
        rows_of(table(columns | {"c": {"range": [2**62, 2**62], "after": "b"}}, rows=1))


@settings(max_examples=25, deadline=None)
@given(weights=st.lists(st.integers(0, 5), min_size=2, max_size=5).filter(any), rows=st.integers(1, 60))
def test_balanced_is_exact_to_one_row(weights: list[int], rows: int) -> None:
    columns = {"n": {"serial": 1}, "c": {"choice": list(range(len(weights))), "weights": weights, "balanced": True}}
    found = Counter(row["c"] for row in rows_of(table(columns, rows=rows)))
    assert found.total() == rows
    assert all(abs(found[at] - rows * weight / sum(weights)) < 1 for at, weight in enumerate(weights))


# rows to samples


def row(**data: Any) -> Draft:
    return Draft(kind="row", data=data)


async def sample(draft: Draft, **config: Any) -> Any:
    [made] = await samples.run(SampleConfig(kind="generate.sample", **config), draft, Context(None, draft))
    return made


async def test_a_row_becomes_the_sample_that_its_columns_say() -> None:
    about = row(review="The lamp is bright.", rating=5, thing="lamp", language="en")
    made = await sample(about, form="labelled", text="{{review}}", label="rating", span="thing")
    assert (made.text, made.label, made.spans) == ("The lamp is bright.", "5", ((4, 8),)) and made.parents == (
        about.id,
    )
    text = await sample(about, form="text", text="{{thing}}: {{review}}")
    assert text.text == "lamp: The lamp is bright."
    chat = await sample(
        about, form="chat", user="How is the {{thing}}?", assistant="{{review}}", system="Be {{rating}}."
    )
    assert [(m.role, m.content, m.train) for m in chat.messages] == [
        ("system", "Be 5.", False), ("user", "How is the lamp?", False), ("assistant", "The lamp is bright.", True),
    ]  # fmt: skip
    talk = await sample(row(turns=["Hi", "Hello.", "Bye", "Goodbye.", "One more"]), form="chat", turns="turns")
    assert [m.role for m in talk.messages] == ["user", "assistant"] * 2 and talk.messages[-1].train is True


async def test_a_sample_is_in_the_language_that_its_row_was_written_in() -> None:
    """Else the filter would drop as foreign all that `written.language=de` asks for."""
    config = AskConfig(kind="generate.ask", model="writer", prompt="About {{product}}.", language="German")
    draft = row(product="Lampe")
    [made] = await ask.run(config, draft, Asking(Writer("Die Lampe ist hell."), own_prompt("ask", "x"), draft))
    assert "language" in (ask.fields(config, Path(), frozenset({"product"})) or ())
    said = await sample(made, form="text", text="{{answer}}")  # type: ignore[arg-type]
    assert said.language == "de" and said.text == "Die Lampe ist hell."
    drawn = await sample(row(product="Lampe", language="German"), form="text", text="{{product}}")
    assert drawn.language == "de"


async def test_what_is_written_from_a_chunk_quotes_it_by_rows_and_without() -> None:
    config = AskConfig(kind="generate.ask", model="writer", prompt="Sum up: {{text}}", gives="sample")
    prompt = own_prompt("ask", "Sum up: {{text}}")
    [made] = await ask.run(config, CHUNK, Asking(Writer("A short text."), prompt, CHUNK))
    [quote] = made.quotes  # type: ignore[union-attr]
    assert (quote.text, quote.start, quote.path) == (CHUNK.text, CHUNK.start, CHUNK.path)
    draft = Draft(kind="row", data={"answer": "A short text."}, parents=(CHUNK.id,))
    [said] = await samples.run(
        SampleConfig(kind="generate.sample", form="text", text="{{answer}}"), draft, Context(None, CHUNK, draft)
    )
    assert said.quotes == (quote,)


@pytest.mark.parametrize(
    ("data", "config", "why"),
    [
        ({"t": "A lamp, a lamp", "l": "x", "s": "lamp"},
         {"form": "labelled", "text": "{{t}}", "label": "l", "span": "s"}, "span not once"),
        ({"t": None}, {"form": "text", "text": "{{t}}"}, "no value for t"),
        ({"t": ["only one"]}, {"form": "chat", "turns": "t"}, "turns that are no conversation"),
    ],
)  # fmt: skip
async def test_a_row_that_is_no_sample_says_why(data: dict[str, Any], config: dict[str, Any], why: str) -> None:
    with pytest.raises(Reject, match=why):
        await sample(row(**data), **config)


def test_a_column_that_no_row_has_is_found_before_anything_runs() -> None:
    config = SampleConfig(kind="generate.sample", form="text", text="{{review}} {{nothing}}")
    with pytest.raises(ConfigError, match="called nothing"):
        samples.fields(config, Path(), frozenset({"review"}))
    for wrong in (
        {"form": "text", "label": "x"},
        {"form": "chat", "turns": "t", "user": "u"},
        {"form": "labelled", "text": "x"},
        {"form": "text", "text": "{{unit price}}"},
    ):
        with pytest.raises(ValidationError):
            SampleConfig(kind="generate.sample", **wrong)


# what is written for a row


class Writer:
    """Stands at the protocol: says one text after the other until one is accepted, three at most."""

    role, identity = "writer", "writer"

    def __init__(self, *said: str) -> None:
        self.said, self.asked, self.told = list(said), [], list[str]()

    async def ask(self, messages: Any, parse: Any, **_: Any) -> Any:
        self.asked.append(list(messages))
        for text in self.said[:3]:
            try:
                return Parsed(parse(text), Answer(text, "stop", Usage(), "key", self.identity), ("key",))
            except ValueError as error:
                self.told.append(str(error))
        raise Reject("invalid answer", self.told[-1])

    async def structured(self, messages: Any, schema: Any, **options: Any) -> Any:
        return await self.ask(messages, schema.model_validate_json, **options)


class Asking(Context):
    """A context whose prompt is the recipe's own."""

    def __init__(self, writer: Writer, prompt: Prompt, *records: Any) -> None:
        super().__init__(writer, *records)  # type: ignore[arg-type]
        self._prompt = prompt

    def prompt(self, name: str) -> Prompt:
        return self._prompt


async def written(draft: Draft, *said: str, **more: Any) -> tuple[dict[str, Any], Writer]:
    config = AskConfig(
        kind="generate.ask", model="writer", **{"prompt": "Write about {{product}} in {{language}}.", **more}
    )
    writer = Writer(*said)
    prompt = own_prompt("ask", config.prompt or "")
    [made] = await ask.run(config, draft, Asking(writer, prompt, draft))
    return made.data, writer  # type: ignore[union-attr,return-value]


LAMP = row(product="C++ <course>", price=20, ordered="2024-05-01")


async def test_words_mentions_and_what_must_be_missing_are_told_to_the_model() -> None:
    said = [
        "Too short.",
        "The C++ course was dear but [Name] learned much.",
        "The C++ <course> was dear but I learned much.",
    ]
    limits = {"min_words": 5, "max_words": 12, "mentions": ["product"], "without": ["[name"]}
    data, writer = await written(LAMP, *said, **limits)
    assert data["answer"] == said[2]
    assert writer.told == ["the text has 2 words: write 5 words or more and 12 words or fewer",
                           "the answer does not mention 'C++ <course>': use these very words"]  # fmt: skip
    with pytest.raises(Reject, match="invalid answer"):
        await written(LAMP, "[NAME] says the C++ <course> was dear indeed.", **limits)


async def test_words_are_counted_and_found_where_no_spaces_are_written() -> None:
    said = "这台灯很亮，而且很安静。"
    data, _ = await written(row(product="台灯"), said, min_words=5, max_words=12, mentions=["product"])
    assert data["answer"] == said
    with pytest.raises(Reject):
        await written(row(product="台灯"), said, min_words=20)


async def test_what_must_be_missing_is_looked_for_in_what_is_said_and_not_in_its_brackets() -> None:
    fields = {"turns": {"type": "array", "items": "string", "maxItems": 3}}
    data, _ = await written(LAMP, '{"turns": ["Hello.", "Hi."]}', fields=fields, without=["["])
    assert data["turns"] == ["Hello.", "Hi."]
    with pytest.raises(Reject):
        await written(LAMP, '{"turns": ["Hello [Name].", "Hi."]}', fields=fields, without=["["])


async def test_a_product_reaches_the_prompt_as_it_is_written_and_the_language_by_name() -> None:
    _, writer = await written(LAMP, "Fine.", language="de")
    assert writer.asked[0][-1].content == "Write about C++ <course> in German."
    _, writer = await written(row(product="lamp", language="fr"), "Fine.")
    assert writer.asked[0][-1].content == "Write about lamp in French."


async def test_parts_are_typed_and_kept_to_their_rules() -> None:
    fields = {
        "refund": {"type": "number", "minimum": 0},
        "reported": {"type": "string", "format": "date"},
        "note": {"type": "string", "minWords": 2, "maxWords": 4},
        "mails": {"type": "array", "items": {"type": "string", "format": "email"}, "minItems": 1, "maxItems": 2},
    }
    good = {"refund": 5.5, "reported": "2024-05-02", "note": "two words", "mails": ["a@b.org"]}
    bad = [{"refund": 21}, {"reported": "2024-04-30"}, {"reported": "2024-02-30"}, {"note": "one"}, {"mails": []},
           {"mails": ["nobody"]}, {"refund": -1}]  # fmt: skip
    rules = ["refund <= price", "reported >= ordered", "note != none"]
    data, _ = await written(LAMP, orjson.dumps(good).decode(), fields=fields, rules=rules)
    assert data == {**LAMP.data, **good}
    for change in bad:
        with pytest.raises(Reject, match="invalid answer"):
            await written(LAMP, orjson.dumps({**good, **change}).decode(), fields=fields, rules=rules)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"fields": {"a": "string"}, "min_words": 3}, "minWords"),
        ({"rules": ["a < b"]}, "name its parts"),
        ({"fields": {"a": "integer"}, "rules": ["a is b"]}, "a rule is"),
        ({"min_words": 9, "max_words": 3}, "more than"),
        ({"fields": {"a": {"enum": ["x"], "maxWords": 3}}}, "does nothing beside"),
        ({"fields": {"a": {"type": "array", "minItems": 5, "maxItems": 2}}}, "5 is more than 2"),
    ],
)
def test_limits_that_cannot_be_are_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        AskConfig(kind="generate.ask", model="w", prompt="x", **more)


def test_limits_on_names_that_are_not_there_are_found_before_anything_runs() -> None:
    for more, said in (
        ({"mentions": ["prodct"]}, "prodct"),
        ({"fields": {"a": "integer"}, "rules": ["b <= price"]}, "b"),
    ):
        config = AskConfig(kind="generate.ask", model="w", prompt="x", **more)
        with pytest.raises(ConfigError, match=said):
            ask.fields(config, Path(), frozenset({"product", "price"}))


@settings(max_examples=30, deadline=None)
@given(left=st.integers(-50, 50), right=st.integers(-50, 50))
def test_rules_compare_numbers_as_numbers(left: int, right: int) -> None:
    for sign, holds in (("<=", left <= right), (">", left > right), ("==", left == right)):
        if holds:
            check(f"a {sign} b", {"a": left, "b": str(right)})
            check(f"a {sign} {right}", {"a": float(left)})
        else:
            with pytest.raises(ValueError, match="does not hold"):
                check(f"a {sign} b", {"a": left, "b": right})


def test_rules_tell_truth_and_refuse_what_has_no_order() -> None:
    check("ok == true", {"ok": True})
    check("ok != true", {"ok": False})
    check("cause != none", {"cause": "wear"})
    with pytest.raises(ValueError, match="cannot be compared"):
        check("refund <= price", {"refund": 5.5})  # the row has no price: its name is only a word


# the four templates


@pytest.mark.parametrize(("recipe", "template"), TEMPLATES.items())
def test_each_template_is_filled_with_all_that_its_table_draws(recipe: str, template: str) -> None:
    """Every knob reaches every template: product, sentiment, tone, person, bounds, length, language."""
    stages = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text("utf-8"))["stages"]
    prompt = own_prompt("ask", (RECIPES / stages["written"]["prompt_file"]).read_text("utf-8"))
    assert {"product", "mood", "tone", "customer", "bounds", "words", "language"} <= prompt.names
    assert stages["written"]["prompt_file"] == f"prompts/{template}.md" and len(prompt.examples) >= 2
    columns = stages["table"]["columns"]
    drawn = rows_of(TableConfig(kind="generate.table", rows=20, columns=columns))
    assert prompt.names - {"language"} <= drawn[0].keys()
    sentiment = "rating" if recipe == "reviews" else "sentiment"
    assert sentiment in prompt.names and {row[sentiment] for row in drawn} == {1, 2, 3, 4, 5}
    assert len({row["mood"] for row in drawn}) == 5
    asked = {prompt.render(**each, language="English")[-1].content for each in drawn}
    assert len(asked) == 20
    for example in prompt.examples[1::2]:  # written by the rules they teach
        texts, limits = [example], stages["written"]
        least, most = limits.get("min_words"), limits.get("max_words")
        if recipe == "chatbot":
            texts, turn = orjson.loads(example)["turns"], limits["fields"]["turns"]["items"]
            least, most = turn["minWords"], turn["maxWords"]
        assert not any(phrase in text for phrase in limits["without"] for text in texts)
        assert all(least <= len(text.split()) <= most for text in texts)


def test_one_row_that_is_refused_costs_one_row_and_nothing_is_paid_twice(tmp_path: Path) -> None:
    """From nothing to files, by the front door: what a server refuses for one row, the others don't pay for."""
    project = Project(tmp_path)
    stages = {
        **dict.fromkeys(("read", "chunks", "facts", "cloze", "clean")),
        "table": {
            "kind": "generate.table",
            "rows": 12,
            "columns": {"number": {"serial": 1}, "product": ["lamp", "fan"], "id": "row {{number}} of {{product}};"},
        },
        "written": {
            "kind": "generate.ask", "model": "writer", "max_failures": 1.0, "prompt": "{{id}} Write about it.",
            "fields": {"said": {"type": "string", "minWords": 3, "maxLength": 80}},
        },
        "samples": {"kind": "generate.sample", "form": "labelled", "text": "{{said}}", "label": "product"},
        "export": {"kind": "curate.export", "formats": ["labelled"]},
    }  # fmt: skip
    with fake_server(refuse="row 7 of") as server:
        project.recipe(server.url, stages=stages)
        outcome = project.go()
        assert len(project.records(outcome, "samples")) == 11 and outcome["funnel"]["written"]["failed"]
        calls = server.stats()["calls"]
        assert 12 <= calls <= 13  # the refused one may be asked once more in another form
        project.go()
        assert server.stats()["calls"] == calls
    [file] = Path(outcome["folder"]).glob("exports/dataset/labelled/train.jsonl")
    rows = [orjson.loads(line) for line in file.read_bytes().splitlines()]
    assert len(rows) == 11 and {each["label"] for each in rows} == {"lamp", "fan"}
