"""OpenAI's batch interface, which others speak too: a file of requests in, files of answers and of errors out.

A batch carries our tag in its metadata, so that it is found again in the list of all. Sources: the guide
(platform.openai.com/docs/guides/batch) and the reference of files and batches: 50,000 requests (embeddings: inputs)
and 200 MB a file; requests that ended before the window closed are answered and paid for, the others are not.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import orjson

from gristmill.core.errors import ProviderError
from gristmill.llm.batch.desk import CLOCKS_DIFFER, Asked, NotTaken, Outcome, State
from gristmill.llm.batch.http import exchange, lines, misshapen, send, word
from gristmill.llm.batch.notes import Batch
from gristmill.llm.provider import Refused, Unanswered, Unreached, Unusable
from gristmill.llm.wire.failure import failure

VERSION = "/v1"  # of the paths that lines name, wherever the server has them
LABEL = "gristmill"  # in a batch's metadata, before its tag
PAGE = 100  # batches listed at once, the most that is allowed
A_LITTLE = "/batches?limit=1"
NO_ROOM = frozenset({"token_limit_exceeded", "rate_limit_exceeded"})  # the account has too much under way
ENDS = frozenset({"completed", "expired", "cancelled"})


class OpenAIDesk:
    most = 50_000
    most_bytes = 190_000_000  # of 200 MB; the rest is for names

    def __init__(self, provider: Asked) -> None:
        self.provider = provider
        self._wire = provider.wire
        self._boundary = secrets.token_hex(16)

    async def submit(self, batch: Batch, lines: list[tuple[str, bytes]]) -> str:
        url = f"{VERSION}{batch.place}"
        try:
            file = await self._upload(f"{batch.tag}.jsonl", url, lines)
        except Unreached:
            raise
        except Unanswered as error:  # a file alone costs nothing
            raise NotTaken(error.message, status=error.status, retry_after=error.retry_after) from error
        asked: dict[str, Any] = {
            "input_file_id": file,
            "endpoint": url,
            "completion_window": "24h",
            "metadata": {LABEL: batch.tag},
        }
        return word(await exchange(self._wire, "POST", "/batches", orjson.dumps(asked)), "id")

    async def _upload(self, name: str, url: str, lines: list[tuple[str, bytes]]) -> str:
        mark = b"--" + self._boundary.encode()
        field = b'\r\nContent-Disposition: form-data; name="'
        head = mark + field + b'purpose"\r\n\r\nbatch\r\n' + mark + field + b'file"; filename="' + name.encode()

        def form() -> Iterator[bytes]:
            yield head + b'"\r\nContent-Type: application/jsonl\r\n\r\n'
            yield from _input_file(url, lines)
            yield b"\r\n" + mark + b"--\r\n"

        kind = f"multipart/form-data; boundary={self._boundary}"
        return word(await send(self._wire, "/files", form, content_type=kind, probe=A_LITTLE), "id")

    async def find(self, batch: Batch, *, known: set[str]) -> str | None:  # noqa: ARG002  (the label tells enough)
        after = ""
        while True:
            page = await exchange(self._wire, "GET", f"/batches?limit={PAGE}{after}")
            listed = page.get("data") or []
            for other in listed:
                if (other.get("metadata") or {}).get(LABEL) == batch.tag:
                    return word(other, "id")
            made = [at for other in listed if isinstance(at := other.get("created_at"), int | float)]  # not all tell
            if not page.get("has_more") or not listed or (made and made[-1] < batch.since - CLOCKS_DIFFER):
                return None
            after = f"&after={word(listed[-1], 'id')}"

    async def look(self, id: str) -> State:
        try:
            batch = await exchange(self._wire, "GET", f"/batches/{id}")
        except Unusable as error:
            if error.status != 404:
                raise
            await exchange(self._wire, "GET", A_LITTLE)  # raises if it is the address that is wrong
            return State(ended=True, gone=True)
        status = word(batch, "status")
        if status == "failed":
            return self._failed(batch)
        files = tuple(batch[name] for name in ("output_file_id", "error_file_id") if batch.get(name))
        written = files or not (batch.get("request_counts") or {}).get("completed")  # the files come a little later
        return State(ended=status in ENDS and bool(written), results=files)

    def _failed(self, batch: dict[str, Any]) -> State:
        errors = (batch.get("errors") or {}).get("data") or [
            {"message": "it failed, and the provider does not say why"}
        ]
        if any(error.get("code") in NO_ROOM for error in errors):
            return State(ended=True, failed=Refused(f"batch {batch['id']}: {errors[0].get('message')}"))
        found = [failure(self._wire.url, 400, {}, orjson.dumps({"error": error})) for error in errors]
        for error in found:
            if isinstance(error, Unusable):
                return State(ended=True, failed=error)
        bad = {error["line"]: its for error, its in zip(errors, found, strict=True) if error.get("line")}
        message = f"the provider turned batch {batch['id']} down: {found[0].message}"
        return State(ended=True, failed=ProviderError(message, found[0].hint, status=400), bad=bad)

    async def results(self, state: State) -> AsyncIterator[tuple[str, Outcome]]:
        for file in state.results:
            with suppress(_Gone):
                async for item in self._lines(file):
                    name, outcome = item.get("custom_id"), self._outcome(item)
                    if isinstance(name, str) and outcome is not None:
                        yield name, outcome
                    else:
                        misshapen(item)

    async def _lines(self, file: str) -> AsyncIterator[dict[str, Any]]:
        try:
            async for item in lines(self._wire, f"/files/{file}/content"):
                yield item
        except Unusable as error:
            if error.status == 404:
                raise _Gone from error
            raise

    def _outcome(self, item: dict[str, Any]) -> Outcome | None:
        response, error = item.get("response"), item.get("error")
        if response is None and isinstance(error, dict):  # expired or cancelled: not done, not paid
            return Unanswered(f"the batch ended before this request was done ({error.get('code')})")
        if not isinstance(response, dict) or type(status := response.get("status_code")) is not int:
            return None
        body: Any = response.get("body")
        if status == 200:
            return body if isinstance(body, dict) else None
        return failure(self._wire.url, status, {}, orjson.dumps(body))


class _Gone(Exception):
    """A file that its owner, or time, has deleted."""


def _input_file(url: str, lines: list[tuple[str, bytes]]) -> Iterator[bytes]:
    line = b'{"custom_id":"%%b","method":"POST","url":"%b","body":%%b}\n' % url.encode()
    for name, body in lines:
        yield line % (name.encode(), body)
