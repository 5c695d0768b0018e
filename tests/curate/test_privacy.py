"""Personal data, secrets and unsafe words: what is found, what is left alone, and what is done about it."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.curate.planted_private import PERSONAL, SECRETS, iban, luhn

from gristmill.core.errors import InputError, Reject
from gristmill.core.records import Message, Sample
from gristmill.curate.privacy import checksums, pii, safety, secrets
from gristmill.curate.privacy.findings import apart
from gristmill.curate.privacy.stages import PiiConfig, SafetyConfig, SecretsConfig

PII, SECRET, SAFE = (
    PiiConfig(kind="curate.pii"),
    SecretsConfig(kind="curate.secrets"),
    SafetyConfig(kind="curate.safety"),
)


def kinds(text: str, config: PiiConfig = PII) -> set[str]:
    return {each.kind for each in apart(pii.finder(config)(text))}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Write to keeper@mill-house.net.", {"email"}),
        ("Write to someone@example.com or root@localhost.", set()),
        ("Call +49 30 1234567 after noon.", {"phone"}),
        ("Tel.: 030 1234567", {"phone"}),
        ("It weighs 030 1234567 grams.", set()),
        ("DE89 3704 0044 0532 0130 00 IS THE ACCOUNT", {"iban"}),
        ("DE88 3704 0044 0532 0130 00 is none", set()),
        ("4111 1111 1111 1111", {"card"}),
        ("4111 1111 1111 1112", set()),
        ("Steuer-ID 86095742719", {"national_id"}),
        ("a value of 86095742719", set()),
        ("RSSMRA85T10A562S", {"national_id"}),
        ("529.982.247-25", {"national_id"}),
        ("529.982.247-26", set()),
        ("number 12345678Z it is", {"national_id"}),
        ("number 12345678A it is", set()),
        ("from 8.8.8.8 and 2001:4860:4860::8888", {"ip"}),
        ("from 10.0.0.1, 127.0.0.1 and ::1", set()),
        ("see section 4.2.1.3", set()),
        ("born on 12.03.1990", {"birth_date"}),
        ("opened on 12.03.1990", set()),
        ("She was born on 12 March 1856.", set()),
        ("at 10:30:15 on 2024-05-01T10:30:15+02:00", set()),
    ],
)
def test_personal_data_is_told_from_what_looks_like_it(text: str, found: set[str]) -> None:
    assert kinds(text) == found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9), st.integers(0, 9), st.integers(2, 20))
def test_one_wrong_digit_is_no_number(seed: int, digit: int, place: int) -> None:
    """Both check digits find every single wrong digit: that is what they are for."""
    rng = random.Random(seed)
    account = iban(rng).replace(" ", "")
    place %= len(account)
    wrong = account[:place] + str(digit) + account[place + 1 :]
    if account[place].isdigit():
        assert checksums.iban(wrong) == (wrong == account)
    card = "4" + "".join(rng.choices("0123456789", k=14))
    card += luhn(card)
    wrong = card[: place % 16] + str(digit) + card[place % 16 + 1 :]
    assert checksums.luhn(wrong) == (wrong == card)


def masked(world: Any, sample: Sample, module: Any = pii, config: Any = PII) -> Sample:
    (made,) = asyncio.run(module.run(config, sample, world.context()))
    return made


def test_masked_in_every_text_of_a_sample_and_the_old_one_is_its_parent(world: Any) -> None:
    mail = "keeper@mill-house.net"
    said = [Message(role=role, content=f"{role} writes to {mail}") for role in ("system", "user", "assistant")]
    sample = Sample(form="preference", kind="qa", messages=said, chosen=said[2:], rejected=said[2:], parents=("p",))
    made = masked(world, sample)
    assert mail not in made.model_dump_json(exclude={"quotes"})
    assert made.messages[2].content == "assistant writes to [email]"
    assert made.marks["personal data"] == {"email": 5}
    assert made.parents == (sample.id,) and made.id != sample.id


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9))
def test_spans_stay_on_their_words(world: Any, seed: int) -> None:
    rng = random.Random(seed)
    words = [rng.choice(["mill", "wheel", "oak", PERSONAL["mail"](rng), PERSONAL["iban"](rng)]) for _ in range(8)]
    text = " ".join(words)
    starts = [len(" ".join(words[:at])) + bool(at) for at in range(8)]
    spans = tuple((start, start + len(word)) for start, word in zip(starts, words, strict=True))
    sample = Sample(form="labelled", kind="k", text=text, label="good", spans=spans, train=spans)
    made = masked(world, sample)
    for name in ("spans", "train"):
        shown = [made.text[start:end] for start, end in getattr(made, name)]
        expected = ["[email]" if "@" in word else "[iban]" if len(word) > 9 else word for word in words]
        assert shown == expected


def test_dropped_or_reported_and_the_value_is_never_written_down(world: Any) -> None:
    sample = world.text("Write to keeper@mill-house.net at once.", world.chunk("The mill."))
    with pytest.raises(Reject) as caught:
        masked(world, sample, config=PII.model_copy(update={"action": "drop"}))
    assert caught.value.reason == "personal data" and "mill-house" not in str(caught.value.detail)
    made = masked(world, sample, config=PII.model_copy(update={"action": "report"}))
    assert (made.id, made.marks) == (sample.id, {"personal data": {"email": 1}})


def test_what_is_allowed_stands(world: Any) -> None:
    text = "Write to office@mill-house.net or keeper@gate.net, or call +49 30 1234567."
    allowing = PII.model_copy(update={"allow": ["@mill-house.net", "+49 30 1234567"]})
    assert masked(world, world.text(text, world.chunk("m")), config=allowing).text == text.replace(
        "keeper@gate.net", "[email]"
    )
    mails = PII.model_copy(update={"find": ["email"]})
    assert kinds(text, mails) == {"email"}


@pytest.mark.parametrize("name", SECRETS)
def test_each_secret_is_masked_and_nothing_beside_it(world: Any, name: str) -> None:
    value = SECRETS[name](random.Random(name))
    sample = world.text(f"The box says: {value} and nothing else.", world.chunk("The mill."))
    made = masked(world, sample, secrets, SECRET)
    longest = max(value.replace('"', " ").replace("@", " ").replace(":", " ").split(), key=len)
    assert longest not in made.text
    assert made.text.startswith("The box says: ") and made.text.endswith(" and nothing else.")


def met(text: str, **settings: Any) -> set[str]:
    config = SAFE.model_copy(update=settings)
    return set(safety.unsafe(text, safety.patterns(config, Path()), config.allow))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("What an 1d10t.", {"insult"}),
        ("f.u.c.k off", {"profanity"}),
        ("FUUUCK", {"profanity"}),
        ("sh*t happens", {"profanity"}),
        ("Scunthorpe, Essex, cockpit, bitter, assassin", set()),
        ("I will kill the lights and then you may go.", set()),
        ("I will kill you.", {"threat"}),
        ("We’re gonna shoot you", {"threat"}),
        ("**bold** and * a list", set()),
        ("Du Arschloch!", {"insult"}),
        ("", set()),
    ],
)
def test_unsafe_words_are_whole_words_in_any_disguise(text: str, found: set[str]) -> None:
    assert met(text) == found


def test_long_texts_without_spaces_are_read_once() -> None:
    """In time that grows with the text, not with its square: that would be an hour."""
    assert met("字，" * 100_000) == set() and met("ab:" * 50_000 + " idiot") == {"insult"}


@pytest.mark.parametrize("sign", "*'-_. ")
def test_rules_of_stars_are_read_once(sign: str) -> None:
    assert not met(f"Notes by the people\n{sign * 4000}\nthey {sign * 4000} are late")


def test_own_lists_and_allowed_words(tmp_path: Path, world: Any) -> None:
    (tmp_path / "rivals.txt").write_text("# of the trade\nacme~\nmill … rival|competitor\n")
    config = SafetyConfig(kind="curate.safety", lists={"rivals": "rivals.txt"}, allow=["idiot"])
    assert safety.inputs(config, tmp_path) == [tmp_path / "rivals.txt"]
    by = safety.patterns(config, tmp_path)
    assert dict(safety.unsafe("The Mill is no rival of ACMEs, idiot.", by, config.allow)) == {"rivals": 2}
    for text, said in (("\n", "is empty"), ("acme |mill", "would meet every text"), ("~", "would meet every text")):
        (tmp_path / "rivals.txt").write_text(text)
        with pytest.raises(InputError, match=said):
            safety.patterns(config, tmp_path)
    (tmp_path / "rivals.txt").write_bytes("Müller".encode("latin-1"))
    with pytest.raises(InputError, match="cannot be read"):
        safety.patterns(config, tmp_path)


def test_an_own_list_is_read_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.txt").write_text("acme\n")
    config = SafetyConfig(kind="curate.safety", lists={"own": "own.txt"})
    read: list[Path] = []
    text_of = Path.read_text

    def counted(path: Path, *how: Any) -> str:
        read.append(path)
        return text_of(path, *how)

    monkeypatch.setattr(Path, "read_text", counted)
    assert all(safety.patterns(config, tmp_path)["own"].search("acme") for _ in range(5)) and len(read) == 1
    (tmp_path / "own.txt").write_text("another\n")
    assert not safety.patterns(config, tmp_path)["own"].search("acme") and len(read) == 2


@pytest.mark.parametrize(
    ("line", "text", "found"),
    [
        ("кот", "Мой кот спит.", 1),
        ("кот", "Человек, который спит.", 0),
        ("кот~", "Мои коты спят.", 1),
        ("γάτα", "Η γάτα.", 1),
        ("白痴", "他是白痴啊", 1),
    ],
)
def test_own_words_are_whole_words_in_every_script_that_has_them(
    line: str, text: str, found: int, tmp_path: Path
) -> None:
    (tmp_path / "own.txt").write_text(f"{line}\n", "utf-8-sig")
    config = SafetyConfig(kind="curate.safety", lists={"own": "own.txt"})
    assert safety.unsafe(text, safety.patterns(config, tmp_path))["own"] == found


def test_an_answer_that_is_there_as_a_bad_one_may_be_bad(world: Any) -> None:
    talk = (Message(role="user", content="Who?"), Message(role="assistant", content="You idiot."))
    bad = Sample(form="rating", kind="qa", messages=talk, desirable=False)
    assert world.step(safety.run, SAFE, bad, world.context()) == ""
    assert world.step(safety.run, SAFE, bad.model_copy(update={"desirable": True}), world.context()) == "unsafe"
    reported = SAFE.model_copy(update={"action": "report"})
    (marked,) = asyncio.run(safety.run(reported, bad.model_copy(update={"desirable": True}), world.context()))
    assert marked.marks == {"unsafe": {"insult": 1}}
