"""Anthropic's message batches: one request with all messages in, one stream of results out.

A batch can carry nothing of ours but the names of its lines, and those show only in its results. So one that was
perhaps handed in is found among those of the right size: by the first line of their results, once they have ended.
Sources: platform.claude.com/docs/en/build-with-claude/batch-processing and the reference of message batches: 100,000
requests and 256 MB; names of 1 to 64 of a-z, A-Z, 0-9, _ and -; only requests that succeeded are paid for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from datetime import datetime
from typing import Any

from gristmill.llm.batch.desk import CLOCKS_DIFFER, Asked, Outcome, State, Undecided
from gristmill.llm.batch.http import exchange, lines, misshapen, send, word
from gristmill.llm.batch.notes import Batch
from gristmill.llm.provider import Unanswered, Unusable
from gristmill.llm.wire.failure import hidden_failure

PATH = "/messages/batches"
A_LITTLE = f"{PATH}?limit=1"
PAGE = 100  # batches listed at once


class AnthropicDesk:
    most = 100_000
    most_bytes = 240_000_000  # of 256 MB; the rest is for names

    def __init__(self, provider: Asked) -> None:
        self.provider = provider
        self._wire = provider.wire
        self._others: set[str] = set()  # batches that were looked into and are none of ours

    async def submit(self, batch: Batch, lines: list[tuple[str, bytes]]) -> str:  # noqa: ARG002  (it carries no label)
        def requests() -> Iterator[bytes]:
            before = b'{"requests":['
            for name, body in lines:
                yield b'%b{"custom_id":"%b","params":%b}' % (before, name.encode(), body)
                before = b","
            yield b"]}"

        return word(await send(self._wire, PATH, requests, content_type="application/json", probe=A_LITTLE), "id")

    async def find(self, batch: Batch, *, known: set[str]) -> str | None:
        undecided, after = False, ""
        earliest = batch.since - CLOCKS_DIFFER
        while True:
            page = await exchange(self._wire, "GET", f"{PATH}?limit={PAGE}{after}")
            listed = page.get("data") or []
            whole = [other for other in listed if _is_whole(other)]
            for other in whole:
                size = sum(other["request_counts"].values())
                if size != batch.count or other["id"] in known | self._others or _instant(other) < earliest:
                    continue
                if other["processing_status"] != "ended":
                    undecided = True
                elif await self._tag(other) == batch.tag:
                    return str(other["id"])
                else:
                    self._others.add(other["id"])
            if not page.get("has_more") or not listed or (whole and _instant(whole[-1]) < earliest):
                break
            after = f"&after_id={word(listed[-1], 'id')}"
        if undecided:
            raise Undecided
        return None

    async def _tag(self, batch: dict[str, Any]) -> str:
        """The tag that its first result bears; empty if there are no results any more."""
        if not batch.get("results_url"):
            return ""
        async with aclosing(lines(self._wire, f"{PATH}/{batch['id']}/results")) as results:
            async for item in results:
                if isinstance(name := item.get("custom_id"), str):
                    return name.partition("-")[0]
        return ""

    async def look(self, id: str) -> State:
        try:
            batch = await exchange(self._wire, "GET", f"{PATH}/{id}")
        except Unusable as error:
            if error.status != 404:
                raise
            await exchange(self._wire, "GET", A_LITTLE)  # raises if it is the address that is wrong
            return State(ended=True, gone=True)
        ended = word(batch, "processing_status") == "ended"
        return State(ended=ended, gone=ended and not batch.get("results_url"), results=(id,))

    async def results(self, state: State) -> AsyncIterator[tuple[str, Outcome]]:
        for id in state.results:
            async for item in lines(self._wire, f"{PATH}/{id}/results"):
                name, outcome = item.get("custom_id"), self._outcome(item.get("result"))
                if isinstance(name, str) and outcome is not None:
                    yield name, outcome
                else:
                    misshapen(item)

    def _outcome(self, result: Any) -> Outcome | None:
        if not isinstance(result, dict) or not isinstance(kind := result.get("type"), str):
            return None
        if kind == "succeeded":
            message: Any = result.get("message")
            return message if isinstance(message, dict) else None
        said: Any = result.get("error")
        if kind == "errored" and isinstance(said, dict) and (error := hidden_failure(self._wire.url, said)) is not None:
            return error
        return Unanswered(f"the batch ended before this request was done ({kind})")  # not done, not paid


def _is_whole(batch: dict[str, Any]) -> bool:
    """Whether a listed batch tells what it is known by."""
    counts, told = batch.get("request_counts"), (batch.get(name) for name in ("id", "processing_status", "created_at"))
    counted = isinstance(counts, dict) and all(isinstance(count, int) for count in counts.values())
    return counted and all(isinstance(said, str) for said in told)


def _instant(batch: dict[str, Any]) -> float:
    """When it was made, in seconds since the epoch."""
    return datetime.fromisoformat(batch["created_at"]).timestamp()
