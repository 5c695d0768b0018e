"""What a recipe may say about a tokenizer that is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from gristmill.core.stage import InputPath, StageConfig

BYTES = 256


class TokenizerConfig(StageConfig):
    """A byte-level BPE tokenizer from the texts of documents, chunks or samples."""

    kind: Literal["train.tokenizer"]
    vocab_size: int = Field(8192, ge=BYTES + 1, le=1_000_000, description="Tokens, special ones and bytes included")
    special_tokens: list[str] = Field(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], min_length=1, description="Tokens that text never becomes"
    )
    eos: str = Field("<|im_end|>", description="The special token that ends a text or an answer")
    min_frequency: int = Field(2, ge=1, description="How often a pair must occur to be merged")
    cut: Literal["smollm", "gpt-2", "qwen2"] = Field(
        "smollm", description="How text is cut before merging, by llama.cpp's name; smollm: words, and single digits"
    )
    chat_template: InputPath | None = Field(
        None, description="A Jinja file; if not given, ChatML where its tokens are among special_tokens, else none"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.eos not in self.special_tokens:
            raise ValueError(f"eos ({self.eos}) is not among special_tokens")
        if len(set(self.special_tokens)) < len(self.special_tokens) or not all(self.special_tokens):
            raise ValueError("special_tokens names a token twice, or none")
        if self.vocab_size < BYTES + len(self.special_tokens):
            raise ValueError(f"vocab_size has no room for {BYTES} bytes and the special tokens")
        return self


def template_file(config: StageConfig, base: Path) -> list[Path]:
    """The file that a training's `chat_template` names: what comes out depends on what is in it."""
    template = getattr(config, "chat_template", None)
    return [] if template is None else [base / template]
