"""What a recipe says about a model. `env:NAME` stays as written, here and wherever a spec is kept, until used."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator

from gristmill.core.secrets import env_name, resolve


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class OpenAISpec(_Spec):
    """Any server that speaks the OpenAI protocol."""

    provider: Literal["openai"]
    model: str = Field(description="Name of the model at the server")
    base_url: str = Field(description="Where the server is, up to and including /v1; or env:NAME")
    api_key: str | None = Field(None, description="env:NAME of the variable that holds the key; never the key itself")
    concurrency: int = Field(8, ge=1, le=4096, description="Requests in flight at most")
    timeout: float = Field(300, gt=0, description="Seconds that one request may take")
    attempts: int = Field(6, ge=1, le=20, description="How often a request is sent before its failure counts")
    json_mode: Literal["schema", "object", "prompt"] = Field(
        "schema", description="How JSON is demanded: by schema, as any JSON object, or in words only"
    )

    @field_validator("base_url")
    @classmethod
    def _an_address(cls, value: str) -> str:
        return value if env_name(value) else _checked_url(value)

    @field_validator("api_key")
    @classmethod
    def _only_named(cls, value: str | None) -> str | None:
        if value is not None and env_name(value) is None:
            raise ValueError("write env:NAME, the variable that holds the key, never the key itself")
        return value

    def url(self) -> str:
        """The address as it is now."""
        return _checked_url(resolve(self.base_url))


class _Engine(_Spec):
    """How a model is served on this machine."""

    concurrency: int = Field(4, ge=1, le=64, description="Answers written at once")
    context: int = Field(2048, ge=256, description="Tokens of prompt and answer together, for each of them")
    threads: int | None = Field(None, ge=1, description="Threads of the engine; by default its cores, at most four")
    prompt_cache: bool = Field(
        True, description="Keep what a slot computed for the beginning of its last prompt; never done in exams"
    )


class LocalSpec(_Engine):
    """Weights on this machine, served by llama.cpp."""

    provider: Literal["local"]
    model: str = Field(description="Name in the catalogue, path of a GGUF file, or folder of a Hugging Face model")


class StageSpec(_Engine):
    """The checkpoint that a stage of the same recipe trains, served like local weights."""

    from_: str = Field(alias="from", description="Name of the stage that trains it")


def _which(value: Any) -> str | None:
    if isinstance(value, StageSpec) or (isinstance(value, dict) and ("from" in value or "from_" in value)):
        return "from"
    found = value.get("provider") if isinstance(value, dict) else getattr(value, "provider", None)
    return found if isinstance(found, str) else None


ModelSpec = Annotated[
    Annotated[OpenAISpec, Tag("openai")] | Annotated[LocalSpec, Tag("local")] | Annotated[StageSpec, Tag("from")],
    Discriminator(
        _which,
        custom_error_type="model_kind",
        custom_error_message="a model needs `provider: openai`, `provider: local`, or `from: <stage that trains it>`",
    ),
]
"""One entry of a recipe's `models`."""


def remote_identity(spec: OpenAISpec) -> str:
    """Base URL and model. An address given as env:NAME stays named, with a hash that tells two of its values apart."""
    if env_name(spec.base_url) is None:
        return f"{spec.base_url} {spec.model}"
    return f"{spec.base_url}#{hashlib.sha256(spec.url().encode()).hexdigest()[:8]} {spec.model}"


def local_identity(sha256: str, template_hash: str, quantization: str | None = None) -> str:
    """The weights' hash and the chat template's; a quantisation made by us depends on nothing else."""
    identity = f"sha256:{sha256} template:{template_hash}"
    return f"{identity} {quantization}" if quantization else identity


def _checked_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"not an address: {value!r} (http://host:port/v1, or env:NAME)")
    if parts.username or parts.password or parts.query:
        raise ValueError("an address holds no user, password or query: give the key as api_key: env:NAME")
    return value.rstrip("/")
