"""`train.tokenizer`: texts teach a byte-level BPE tokenizer (Sennrich et al. 2016, over bytes as in GPT-2).

The texts are read one by one and counted by word, so a corpus may be larger than memory. The same texts give the same
tokenizer: pairs are merged by count, ties by the pair. In the stage's folder: `tokenizer/`, which transformers'
AutoTokenizer, `ingest.chunk` and every model folder can use. How well it fits the corpus is said in tokens per word and
bytes per token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from gristmill.core.errors import Cancelled, InputError
from gristmill.core.records import Chunk, Document, Draft, Record, Sample
from gristmill.core.stage import PassContext, PassResult
from gristmill.models import checkpoint
from gristmill.models.renderer import Renderer
from gristmill.models.tokenizer import Vocabulary, control_of, save_plain_vocabulary, set_cutter
from gristmill.train.tokenizer_config import TokenizerConfig

FOLDER = "tokenizer"
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def run(config: TokenizerConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    """Train on texts whose split is missing or `train`."""
    tokenizer = _trained(config, _texts(records, ctx))
    renderer = Renderer(_vocabulary(config, tokenizer, ctx))
    fit = _fit(tokenizer, _texts(records, ctx))
    if renderer.chats:
        _ = renderer.turn_end  # a template that cannot be trained with is refused now
    figures = {"vocabulary": tokenizer.get_vocab_size(), "texts": fit.texts, "tokens": fit.tokens}
    rates = {"tokens_per_word": fit.tokens / fit.words, "bytes_per_token": fit.bytes / fit.tokens}
    with checkpoint.staged(ctx.folder / FOLDER, metadata={"step": 0, **figures, **rates}) as temp:
        renderer.save_tokenizer(temp)
        save_plain_vocabulary(renderer.vocabulary, temp)
    manifest = checkpoint.verify(ctx.folder / FOLDER)
    ctx.metric(**figures, **rates)
    data = {**figures, **rates, "template": renderer.template_hash, "manifest": manifest.sha256}
    yield Draft(kind="tokenizer", data=data, marks={"folder": FOLDER})


def _texts(records: Iterable[Record], ctx: PassContext) -> Iterator[str]:
    for at, record in enumerate(records):
        if at % 1000 == 0 and ctx.stopping():
            raise Cancelled("stopped while a tokenizer was trained", "Run the same command again.")
        if record.marks.get("split", "train") == "train":
            yield from _of(record)


def _of(record: Record) -> Iterator[str]:
    """Every text that a record holds."""
    if isinstance(record, Document | Chunk):
        yield record.text
    elif isinstance(record, Sample):
        spoken = (*record.messages, *record.chosen, *record.rejected)
        yield from filter(None, (record.text, *(message.content for message in spoken)))


def _trained(config: TokenizerConfig, texts: Iterable[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    set_cutter(tokenizer, config.cut)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in config.special_tokens],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _vocabulary(config: TokenizerConfig, tokenizer: Tokenizer, ctx: PassContext) -> Vocabulary:
    chatml = CHATML if {"<|im_start|>", "<|im_end|>"} <= {*config.special_tokens} else ""
    template = chatml if config.chat_template is None else (ctx.base / config.chat_template).read_text("utf-8")
    eos = tokenizer.get_vocab()[config.eos]
    tokenizer.encode_special_tokens = True
    return Vocabulary(
        tokenizer=tokenizer,
        template=template,
        control=control_of(tokenizer),
        eos=eos,
        ends=frozenset({eos}),
        bos=None,
        context=0,
        names={"eos_token": config.eos},
    )


@dataclass
class _Fit:
    texts: int = 0
    words: int = 0
    bytes: int = 0
    tokens: int = 0


def _fit(tokenizer: Tokenizer, texts: Iterator[str]) -> _Fit:
    fit = _Fit()
    while some := list(islice(texts, 256)):
        fit.texts += len(some)
        fit.words += sum(len(text.split()) for text in some)
        fit.bytes += sum(len(text.encode()) for text in some)
        fit.tokens += sum(len(row) for row in tokenizer.encode_batch_fast(some, add_special_tokens=False))
    if not fit.words:
        raise InputError("there is no text to train a tokenizer on", "Look at the stage's input: gristmill show RUN")
    return fit
