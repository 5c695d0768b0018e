from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from gristmill.core.errors import ConfigError
from gristmill.llm.prices import NANO, price_of
from gristmill.llm.spec import (
    AnthropicSpec,
    LocalSpec,
    ModelSpec,
    OpenAISpec,
    StageSpec,
    local_identity,
    remote_identity,
)

SPEC: TypeAdapter[Any] = TypeAdapter(ModelSpec)
REMOTE = {"provider": "openai", "model": "m", "base_url": "http://localhost:1/v1"}


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (REMOTE, OpenAISpec),
        ({"provider": "local", "model": "smollm2-135m-instruct", "threads": 2}, LocalSpec),
        ({"from": "tune", "context": 1024}, StageSpec),
        ({"provider": "anthropic", "model": "m", "api_key": "env:KEY"}, AnthropicSpec),
        ({**REMOTE, "stream": True, "first_token_timeout": 5, "rpm": 60, "fallback": ["spare"]}, OpenAISpec),
        ({**REMOTE, "price": {"input": 0.1, "output": 0.4}, "batch": {"size": 10}}, OpenAISpec),
    ],
)
def test_an_entry_becomes_its_kind_and_comes_back_the_same(raw: dict[str, Any], kind: type) -> None:
    spec = SPEC.validate_python(raw)
    assert isinstance(spec, kind)
    assert SPEC.validate_python(spec.model_dump(mode="json", by_alias=True)) == spec
    assert SPEC.validate_python(spec) is spec


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"model": "m"}, "a model needs `provider: openai`"),
        ({"provider": "magic", "model": "m"}, "openai"),
        ({**REMOTE, "tempreature": 1}, "Extra inputs are not permitted"),
        ({**REMOTE, "api_key": "sk-abc"}, "write env:NAME"),
        ({**REMOTE, "base_url": "localhost:1"}, "not an address"),
        ({**REMOTE, "base_url": "http://me:secret@host/v1"}, "no user, password"),
        ({**REMOTE, "concurrency": 0}, "greater than or equal to 1"),
        ({"from": "tune", "provider": "local"}, "Extra inputs are not permitted"),
        ({**REMOTE, "idle_timeout": 5}, "need `stream: true`"),
        ({**REMOTE, "stream": True, "batch": {}}, "a batch cannot `stream`"),
        ({**REMOTE, "headers": {"X-Api-Key": "abc"}}, "`X-Api-Key` holds a secret"),
        ({**REMOTE, "price": {"input": 1}}, "Field required"),
        ({**REMOTE, "batch": {"size": 0}}, "greater than or equal to 1"),
        ("smollm2", "a model needs"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(raw: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        SPEC.validate_python(raw)


def test_named_values_stay_named_in_what_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_URL", "http://internal-host:9/v1")
    monkeypatch.setenv("LLM_KEY", "sk-secret")
    spec = SPEC.validate_python({**REMOTE, "base_url": "env:LLM_URL", "api_key": "env:LLM_KEY"})
    written = spec.model_dump_json() + repr(spec) + remote_identity(spec)
    assert "internal-host" not in written and "sk-secret" not in written
    assert spec.url() == "http://internal-host:9/v1"


def test_a_batch_is_half_price_unless_said_otherwise() -> None:
    price = {"input": 1, "output": 4}
    for more, share in ({}, 1), ({"batch": {}}, 0.5), ({"batch": {}, "price": {**price, "batch": 0.4}}, 0.4):
        found = price_of(OpenAISpec(**{**REMOTE, "price": price, **more}))
        assert found is not None and found.most(1_000_000, 1_000_000) == share * 5 * NANO


def test_identities_tell_servers_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = OpenAISpec(provider="openai", model="m", base_url="env:LLM_URL")
    monkeypatch.setenv("LLM_URL", "http://a/v1/")
    first = remote_identity(spec)
    monkeypatch.setenv("LLM_URL", "http://b/v1")
    assert remote_identity(spec) != first
    assert remote_identity(OpenAISpec(**REMOTE)) == "http://localhost:1/v1 m"
    assert local_identity("aa", "bb") == "sha256:aa template:bb"
    assert local_identity("aa", "bb", "q8_0") != local_identity("aa", "bb")
    monkeypatch.delenv("LLM_URL")
    with pytest.raises(ConfigError, match="LLM_URL is not set"):
        remote_identity(spec)
