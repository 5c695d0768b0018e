"""Any server that speaks the OpenAI protocol: one HTTP session, plain dictionaries, no SDK.

An SDK costs ten to forty times the CPU of this per call. `Wire` sends bodies and sorts failures; the local engine
uses it too. `OpenAIProvider` knows how requests and replies look.
"""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson

from gristmill.core.ask import Usage
from gristmill.core.errors import ProviderError
from gristmill.core.secrets import resolve
from gristmill.llm.provider import Reply, Request, Unanswered, split_reasoning
from gristmill.llm.spec import OpenAISpec, remote_identity

CONNECT_SECONDS = 15
LARGEST_REPLY = 64 << 20  # bytes, unpacked
PASSING = frozenset({408, 409, 425, 429})
MENDABLE = frozenset({401, 403, 404})  # key, rights, address, model name
MESSAGE_OVERHEAD = 16  # tokens of template around one message; the widest common template takes 11
_FINISH = {
    "stop": "stop",
    "length": "length",
    "eos": "stop",
    "stop_sequence": "stop",
    "end_turn": "stop",
    "max_tokens": "length",
    "tool_calls": "stop",
}
_HINTS = {
    401: "Check the variable that `api_key` names, and that it holds a valid key.",
    403: "The key is known but may not use this model.",
    404: "Check base_url (it ends in /v1 on most servers) and the model's name.",
    413: "Send less text per request: smaller chunks.",
}


class Wire:
    """Posts JSON to one server. A key is read when it is sent, and once more when the server refuses it."""

    def __init__(self, url: str, *, api_key: str | None, timeout: float) -> None:
        self.url = url
        self._named_key = api_key
        self._headers: dict[str, str] | None = None
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=min(CONNECT_SECONDS, timeout))
        self._session: aiohttp.ClientSession | None = None

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The reply's JSON object; Unanswered or ProviderError for everything else."""
        data = orjson.dumps(body)
        headers = self.headers()
        status, raw, wait = await self._exchange(path, data, headers)
        if status == 401 and self._named_key and (again := self._read_key()) != headers:
            status, raw, wait = await self._exchange(path, data, again)
        if status != 200:
            raise self._refusal(status, raw, wait)
        try:
            reply = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise Unanswered(f"{self.url} answered with malformed JSON: {_words(raw)}", charged=True) from error
        if not isinstance(reply, dict):
            raise Unanswered(f"{self.url} answered with something else than an object: {_words(raw)}", charged=True)
        return reply

    async def _exchange(self, path: str, data: bytes, headers: dict[str, str]) -> tuple[int, bytes, float | None]:
        session = self._session or self._open()
        try:
            async with session.post(
                self.url + path, data=data, headers=headers, timeout=self._timeout, allow_redirects=False
            ) as response:
                return response.status, await self._read(response), _seconds(response.headers.get("Retry-After"))
        except aiohttp.ClientConnectorError as error:
            raise Unanswered(
                f"cannot reach {self.url}: {error}", "Check that the server runs, and its address."
            ) from error
        except TimeoutError as error:
            raise Unanswered(
                f"{self.url} did not answer within {self._timeout.total:g} s",
                "Raise the model's `timeout`.",
                charged=True,
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            what = str(error) or type(error).__name__
            raise Unanswered(f"the connection to {self.url} broke: {what}", charged=True) from error

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        data = bytearray()
        async for piece in response.content.iter_any():
            data += piece
            if len(data) > LARGEST_REPLY:
                raise ProviderError(
                    f"{self.url} answered with more than {LARGEST_REPLY >> 20} MiB",
                    "Lower max_tokens, or embed fewer texts at once.",
                    status=response.status,
                )
        return bytes(data)

    def _open(self) -> aiohttp.ClientSession:
        # No limit at the connector: the client's slots are the limit.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=True
        )
        return self._session

    def headers(self) -> dict[str, str]:
        """What every request carries: for callers that stream, which `post` does not."""
        return self._headers or self._read_key()

    def _read_key(self) -> dict[str, str]:
        self._headers = {"Content-Type": "application/json"}
        if self._named_key is not None:
            self._headers["Authorization"] = f"Bearer {resolve(self._named_key)}"
        return self._headers

    def _refusal(self, status: int, raw: bytes, wait: float | None) -> ProviderError:
        message = f"{self.url} answered {status}: {_words(raw)}"
        if status in PASSING or status >= 500:
            return Unanswered(message, status=status, retry_after=wait)
        # What a person mends outside the request is asked again by the next run; a bad request stays bad.
        return ProviderError(message, _HINTS.get(status, ""), status=status, transient=status in MENDABLE)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


class OpenAIProvider:
    """chat/completions, completions and embeddings of one model at one server."""

    def __init__(self, spec: OpenAISpec) -> None:
        self.spec = spec
        self.identity = remote_identity(spec)
        self.concurrency = spec.concurrency or 16
        self.attempts = spec.attempts
        self.shared = True
        self.context: int | None = None
        url = spec.url()
        self.wire = Wire(url, api_key=spec.api_key, timeout=spec.timeout)
        # OpenAI itself refuses the old name for its newer models; most other servers know only the old one.
        self._limit = "max_completion_tokens" if urlsplit(url).hostname == "api.openai.com" else "max_tokens"

    async def send(self, request: Request) -> Reply:
        if request.grammar is not None:
            raise ProviderError(
                f"{self.wire.url} cannot bind an answer to a grammar", "Use a local model for this stage."
            )
        body: dict[str, Any]
        if request.texts:
            body = {"model": self.spec.model, "input": list(request.texts), "encoding_format": "float"}
            return read_embeddings(await self.wire.post("/embeddings", body), len(request.texts))
        if request.prompt is not None:
            body = self._sampling(request) | {"max_tokens": request.max_tokens, "prompt": request.prompt, "logprobs": 1}
            return read_completion(await self.wire.post("/completions", body))
        body = self._sampling(request) | {self._limit: request.max_tokens, "messages": request.messages}
        if request.schema is not None:
            body |= self._json_demand(request)
        return read_chat(await self.wire.post("/chat/completions", body))

    @property
    def name(self) -> str:
        return line_name(self.spec)

    def input_bound(self, request: Request) -> int:
        return byte_bound(request)

    async def close(self) -> None:
        await self.wire.close()

    def _sampling(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.spec.model, "temperature": request.temperature}
        if request.stop:
            body["stop"] = request.stop
        if request.seed is not None:
            body["seed"] = request.seed
        return body

    def _json_demand(self, request: Request) -> dict[str, Any]:
        if self.spec.json_mode in ("auto", "schema"):
            form = {"name": request.schema_name, "strict": True, "schema": request.schema}
            return {"response_format": {"type": "json_schema", "json_schema": form}}
        schema = orjson.dumps(request.schema).decode()
        *before, last = request.messages
        words = f"{last['content']}\n\nAnswer with one JSON object and nothing else, by this JSON Schema:\n{schema}"
        told: dict[str, Any] = {"messages": (*before, {**last, "content": words})}
        return told | ({"response_format": {"type": "json_object"}} if self.spec.json_mode == "object" else {})


def line_name(spec: OpenAISpec) -> str:
    """Host, model, and what tells two keys apart without being one: limits are counted per key."""
    name = f"{urlsplit(spec.url()).netloc} {spec.model}"
    if spec.api_key is None:
        return name
    return f"{name} key:{hashlib.sha256(resolve(spec.api_key).encode()).hexdigest()[:6]}"


def byte_bound(request: Request) -> int:
    """Every token takes at least one byte of text; around each message stands some template."""
    if isinstance(request.prompt, tuple):
        return len(request.prompt)
    texts = [*(m["content"] for m in request.messages), *request.texts, request.prompt or ""]
    schema = len(orjson.dumps(request.schema)) if request.schema is not None else 0
    return sum(len(t.encode()) + MESSAGE_OVERHEAD for t in texts) + schema


def read_chat(body: dict[str, Any]) -> Reply:
    choice = _choice(body)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise _malformed(body)
    text, thoughts = split_reasoning(message.get("content") or "")
    thoughts = message.get("reasoning_content") or message.get("reasoning") or thoughts
    return Reply(text, _finish(choice), read_usage(body), reasoning=thoughts)


def read_completion(body: dict[str, Any]) -> Reply:
    """A continuation. Token ids come only from servers that send them; log-probabilities in either form."""
    choice = _choice(body)
    text = choice.get("text")
    if not isinstance(text, str):
        raise _malformed(body)
    found = choice.get("logprobs") or {}
    content = found.get("content") or []
    ids = tuple(item["id"] for item in content if "id" in item)
    logprobs = tuple(item["logprob"] for item in content) or tuple(found.get("token_logprobs") or ())
    return Reply(text, _finish(choice), read_usage(body), tokens=ids, logprobs=logprobs)


def read_embeddings(body: dict[str, Any], count: int) -> Reply:
    rows = body.get("data")
    if not isinstance(rows, list) or len(rows) != count:
        raise _malformed(body)
    vectors = tuple(tuple(row["embedding"]) for row in sorted(rows, key=lambda row: row["index"]))
    return Reply("", "stop", read_usage(body), vectors=vectors)


def read_usage(body: dict[str, Any]) -> Usage:
    usage = body.get("usage")
    if not isinstance(usage, dict) or not isinstance(usage.get("prompt_tokens"), int):
        return Usage(known=False)
    return Usage(usage["prompt_tokens"], usage.get("completion_tokens") or 0)


def _choice(body: dict[str, Any]) -> dict[str, Any]:
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise _malformed(body)
    return choices[0]


def _finish(choice: dict[str, Any]) -> str:
    reason = choice.get("finish_reason")
    if reason == "content_filter":
        raise ProviderError("the provider withheld the answer (content_filter)", status=200)
    if reason not in _FINISH:
        raise ProviderError(f"the provider ended the answer in an unknown way: {reason!r}", status=200)
    return _FINISH[reason]


def _malformed(body: dict[str, Any]) -> Unanswered:
    return Unanswered(f"the provider's answer lacks what it must hold: {_words(orjson.dumps(body))}", charged=True)


def _words(raw: bytes) -> str:
    """The provider's own words about a failure, as short as they can be found."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return raw.decode(errors="replace").strip()[:300] or "(nothing)"
    error = body.get("error", body) if isinstance(body, dict) else body
    message = error.get("message") if isinstance(error, dict) else error
    return str(message or error)[:500]


def _seconds(value: str | None) -> float | None:
    """Retry-After in seconds; a date there is left to our own backoff."""
    try:
        return max(0.0, float(value)) if value is not None else None
    except ValueError:
        return None
