"""What a recipe says about a model. `env:NAME` stays as written, here and wherever a spec is kept, until used."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from gristmill.core.errors import ConfigError
from gristmill.core.secrets import env_name, look_up

_SECRET_HEADER = re.compile(r"authorization|api[-_]?key|token|secret|cookie", re.IGNORECASE)


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class PriceSpec(_Spec):
    """What a model costs, in $ for a million tokens: for models that the price table lacks, or a price of your own."""

    input: float = Field(ge=0, description="Tokens sent")
    output: float = Field(ge=0, description="Tokens received; reasoning is output")
    cached_input: float | None = Field(None, ge=0, description="Tokens sent that a prompt cache served; default: input")
    cache_write: float | None = Field(None, ge=0, description="Tokens sent and put into the cache; default: input")
    batch: float = Field(
        0.5, gt=0, le=1, description="Share of these prices that a batch costs; OpenAI and Anthropic charge half"
    )


class BatchSpec(_Spec):
    """Requests gathered and handed in together, at the provider's batch price; answers may take hours."""

    size: int = Field(1000, ge=1, le=50_000, description="Requests of one batch at most")
    seconds: float = Field(60, ge=0, description="How long a batch that is not full waits for more requests")
    poll: float = Field(30, gt=0, description="Seconds between two looks at a batch under way")


class RemoteSpec(_Spec):
    """A model behind an address, and how it is asked. What a provider calls its limits goes into rpm and tpm."""

    model: str = Field(description="Name of the model at the server")
    base_url: str = Field(description="Where the server is, up to and including /v1; or env:NAME")
    api_key: str | None = Field(
        None,
        description="env:NAME of the variable that holds the key (or NAME_FILE, of a file that holds it, read anew "
        "when the key is refused); never the key itself",
    )
    headers: dict[str, str] = Field(default_factory=dict, description="Further headers of every request; no secrets")
    concurrency: int | None = Field(
        None, ge=1, le=4096, description="Requests in flight at most; by default as many as the server serves best"
    )
    rpm: int | None = Field(None, ge=1, description="Requests a minute at most; by default what the server says")
    tpm: int | None = Field(None, ge=1, description="Tokens a minute at most; by default what the server says")
    timeout: float = Field(300, gt=0, description="Seconds that one request may take in all")
    connect_timeout: float = Field(15, gt=0, description="Seconds until the connection stands")
    first_token_timeout: float | None = Field(None, gt=0, description="Seconds until an answer begins; needs `stream`")
    idle_timeout: float | None = Field(None, gt=0, description="Seconds without a sign of life; needs `stream`")
    stream: bool = Field(False, description="Receive answers piece by piece, so that a stalled one is noticed early")
    attempts: int = Field(8, ge=1, le=20, description="How often a request is sent before its failure counts")
    json_mode: Literal["auto", "schema", "object", "prompt"] = Field(
        "auto", description="How JSON is demanded: by schema, as any JSON object, in words only, or found by asking"
    )
    price: PriceSpec | None = Field(None, description="$ for a million tokens; by default from the price table")
    fallback: tuple[str, ...] = Field((), description="Other entries of `models`, asked in turn when this one is down")
    batch: BatchSpec | None = Field(None, description="Ask through the provider's batch interface")

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

    @field_validator("headers")
    @classmethod
    def _no_keys(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if _SECRET_HEADER.search(name):
                raise ValueError(f"`{name}` holds a secret: give the key as api_key: env:NAME")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not self.stream and (self.first_token_timeout or self.idle_timeout):
            raise ValueError("first_token_timeout and idle_timeout need `stream: true`: else only the end is seen")
        if self.batch and self.stream:
            raise ValueError("a batch cannot `stream`")
        return self

    def url(self) -> str:
        """The address as it is now, which may be said. What is none may be a secret in the wrong place: it is not."""
        try:
            return _checked_url(look_up(self.base_url))
        except ValueError:
            hint = "It is http://host:port/v1, without user, password or query; keys go into api_key: env:NAME."
            raise ConfigError(f"{self.base_url} does not hold an address", hint) from None


class OpenAISpec(RemoteSpec):
    """Any server that speaks the OpenAI protocol."""

    provider: Literal["openai"]


class AnthropicSpec(RemoteSpec):
    """A server that speaks the Anthropic protocol."""

    provider: Literal["anthropic"]
    base_url: str = Field(
        "https://api.anthropic.com/v1", description="Where the server is, up to and including /v1; or env:NAME"
    )


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
    model: str = Field(description="Name in the catalogue, hub:OWNER/NAME, path of a GGUF file, or folder of a model")


class StageSpec(_Engine):
    """The checkpoint that a stage of the same recipe trains, served like local weights."""

    from_: str = Field(alias="from", description="Name of the stage that trains it")


def _which(value: Any) -> str | None:
    if isinstance(value, StageSpec) or (isinstance(value, dict) and ("from" in value or "from_" in value)):
        return "from"
    found = value.get("provider") if isinstance(value, dict) else getattr(value, "provider", None)
    return found if isinstance(found, str) else None


ModelSpec = Annotated[
    Annotated[OpenAISpec, Tag("openai")]
    | Annotated[AnthropicSpec, Tag("anthropic")]
    | Annotated[LocalSpec, Tag("local")]
    | Annotated[StageSpec, Tag("from")],
    Discriminator(
        _which,
        custom_error_type="model_kind",
        custom_error_message="a model needs `provider: openai`, `provider: anthropic`, `provider: local`, "
        "or `from: <stage that trains it>`",
    ),
]
"""One entry of a recipe's `models`."""


def fallback_of(spec: ModelSpec | None) -> tuple[str, ...]:
    """The roles that stand in for a model that is down, in their order."""
    return spec.fallback if isinstance(spec, RemoteSpec) else ()


def remote_identity(spec: RemoteSpec) -> str:
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
