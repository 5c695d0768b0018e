"""Format and length, one small check each. What the source itself holds (a fence, a repetition) is no defect; nor is
anything in an answer that is rejected, or rated as undesirable: it is there as a bad one."""

from __future__ import annotations

import re

from gristmill.core.errors import Reject
from gristmill.core.records import Chunk, Document, Record, Sample
from gristmill.core.stage import StepContext
from gristmill.core.thoughts import parted
from gristmill.curate.language import identifier, known_as
from gristmill.curate.leak import leaked
from gristmill.curate.leaning import held, leaning
from gristmill.curate.stages import FilterConfig, Length
from gristmill.curate.words import fold, plain, words

MODEL_TALK: dict[str, tuple[str, ...]] = {
    "en": ("as an ai", "as a language model", "as a large language model", "as an artificial intelligence"),
    "de": ("als ki", "als sprachmodell", "als ki sprachmodell", "als künstliche intelligenz"),
    "fr": ("en tant qu ia", "en tant que modèle de langage", "en tant qu intelligence artificielle"),
    "es": ("como ia", "como modelo de lenguaje", "como un modelo de lenguaje", "como inteligencia artificial"),
    "it": ("come modello linguistico", "come un modello linguistico", "come intelligenza artificiale"),
}

_TOKENS = r"<\|[^|>\s]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|</?think>|^@(?:system|user|assistant)\b"
_TOKEN = re.compile(_TOKENS, re.IGNORECASE | re.MULTILINE)
_MARKER = re.compile(
    rf"{_TOKENS}|^[ \t]*(?:#{{2,}} *)?(?:system|user|assistant|human|"
    r"instruction|response|question|answer|frage|antwort|réponse|Q|A)[ \t]*:",
    re.IGNORECASE | re.MULTILINE,
)
_CODE = re.compile(r"```|~~~|[{\[]\s*\"|\"\s*:\s*[\"\[{\d]|\"\s*[}\]]|\\n|\{\{|\}\}")
_CHARACTER_RUN = re.compile(r"([^\s\d])\1{9,}")
_QUESTION_END = ("?", "？", "؟", "\u037e")
_IMPERATIVES = """
    name give tell state list say identify specify describe explain please
    nenne nennen gib geben sag sage bitte beschreibe erklare
    nomme nommez donne donnez cite citez dis dites indique indiquez
    nombra di da indica nomina dimmi noem geef zeg
"""
_REQUESTS = frozenset(_IMPERATIVES.split())
_GAP = re.compile(r"_{3,}")
_MIN_LETTERS, _SURE = 40, 0.95


def _length(text: str, bounds: Length, what: str) -> None:
    count, characters = len(text.split()), len(text)
    if count < bounds.min_words or characters < bounds.min_characters:
        raise Reject(f"{what} too short", text[:200])
    if count > bounds.max_words or characters > bounds.max_characters:
        raise Reject(f"{what} too long", text[:200])


def _question_mark(question: str) -> None:
    """A gap to fill asks without one, and so does a request."""
    asks = _REQUESTS.intersection(words(question)[:1]) and question.rstrip().endswith((".", "!"))
    if asks or _GAP.search(question):
        return
    if not question.rstrip(" \t\n\"'”’»)").endswith(_QUESTION_END):
        raise Reject("question without question mark", question[:200])


def _leaning(config: FilterConfig, question: str, language: str) -> None:
    own = config.leaning.get(language)
    if phrase := leaning(question, language) if own is None else held(question, own):
        raise Reject("question leans on its source", phrase)


def _model_talk(text: str, source: str, language: str) -> None:
    phrases = MODEL_TALK.get(language, ())
    if (phrase := held(text, phrases)) and not held(source, phrases):
        raise Reject("speaks as a language model", f"{phrase}: {text[:200]}")


def _remnant(text: str, source: str, pattern: re.Pattern[str], reason: str) -> None:
    hit = next((hit[0] for hit in pattern.finditer(text) if hit[0].strip() not in source), "")
    if hit:
        raise Reject(reason, hit.strip())


def _loop(text: str) -> str:
    """Words that repeat without end: a sequence of up to 8 words, at least 4 times in a row and 8 words in all."""
    if run := _CHARACTER_RUN.search(text):
        return run[0]
    tokens = words(text)
    for size in range(1, 9):
        same = 0
        for i in range(size, len(tokens)):
            same = same + 1 if tokens[i] == tokens[i - size] else 0
            if same >= max(3 * size, 8 - size):
                return " ".join(tokens[i - size + 1 : i + 1])
    return ""


def _repetition(text: str, source: str) -> None:
    if (loop := _loop(text)) and fold(loop) not in fold(_loop(source)):
        raise Reject("repetition", loop[:200])


def _language(text: str, language: str) -> None:
    """Only where the detector knows the language and is sure: short and name-heavy texts read as anything."""
    code = known_as(language)
    if not code or sum(c.isalpha() for c in text) < _MIN_LETTERS:
        return
    found, probability = identifier().classify(text)
    if found != code and probability >= _SURE:
        raise Reject("wrong language", f"{found} instead of {language}: {text[:200]}")


def _answer_in_question(sample: Sample) -> None:
    answer = plain(sample.answer)
    if answer and f" {answer} " in f" {plain(sample.question)} ":
        raise Reject("answer in question", sample.answer[:200])


def _echo(sample: Sample) -> None:
    """An answer that is its question again. Where a system message or an earlier turn says what is to be done with it
    (its spelling mended, say), that may be right."""
    alone = [message.role for message in sample.messages if message.role != "assistant"] == ["user"]
    if alone and sample.desirable is not False and plain(sample.answer) == plain(sample.question) != "":
        raise Reject("answer repeats its question", sample.answer[:200])


def _check_shape(config: FilterConfig, sample: Sample) -> None:
    if sample.text:
        return _length(sample.text, config.text_length, "text")
    _length(sample.question, config.question_length, "question")
    if sample.desirable is not False:
        _length(sample.answer, config.answer_length, "answer")
    if sample.kind in config.question_kinds:
        if config.question_mark:
            _question_mark(sample.question)
        _leaning(config, sample.question, sample.language)
    _echo(sample)
    if config.answer_in_question:
        _answer_in_question(sample)


def _said(sample: Sample) -> list[str]:
    unchecked = {"system", "assistant"} if sample.desirable is False else {"system"}
    said = [parted(m.content, sample) for m in (*sample.messages, *sample.chosen) if m.role not in unchecked]
    return [text for each in said for text in (each.thought, each.answer) if text]


async def run(config: FilterConfig, record: Sample, ctx: StepContext) -> list[Record]:
    _check_shape(config, record)
    chunks = [chunk.text for chunk in ctx.ancestors(record, Chunk)]
    source = "\n".join(chunks or [document.text for document in ctx.ancestors(record, Document)])
    texts = [record.text] if record.text else _said(record)
    for text in texts:
        if config.markers:
            pattern = _TOKEN if record.text else _MARKER  # a text may be a talk between A and B
            _remnant(text, source, pattern, "role marker")
        if config.code:
            _remnant(text, source, _CODE, "code or JSON remnant")
        if config.repetition:
            _repetition(text, source)
        if config.model_talk:
            _model_talk(text, source, record.language)
    if config.language:
        _language("\n".join(texts), record.language)
    prompts = ctx.prompts_of(record) if config.leak else ()
    if gram := leaked(texts, prompts, source, config.leak_words, record.language):
        raise Reject("repeats an example of the prompt", gram)
    return [record]
