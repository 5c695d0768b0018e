"""What a server takes, found by asking it: how JSON is demanded, and which parameters it refuses.

Nothing is sent only to find out. A request that the server refuses because of how it asks (400 or 422, never paid) is
sent again, asked in the next plainer way. A server that takes the demand for JSON and ignores it shows by an answer
that is none: that attempt is given up and made again. A way of asking is settled by the first answer that fits it,
and kept with the line: later runs begin with it.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, replace
from typing import Any, Protocol

from gristmill.core.logs import log
from gristmill.llm.wire.failure import BadRequest

SPACE = "probe"
REMEMBERED_SECONDS = 7 * 86400.0  # then it is found out anew: servers learn

_REFUSES = re.compile(
    r"unsupported|not support|unrecogni[sz]ed|unknown|unexpected|extra (?:inputs|fields)|deprecated|not permitted|"
    r"not allowed|not available|only the default|extra_forbidden|no longer",
    re.IGNORECASE,
)
_ABOUT_JSON = re.compile(
    r"response.format|json.?schema|json.?object|output_config|output_format|structured.output|guided|grammar|tool",
    re.IGNORECASE,
)


class Notes(Protocol):
    """Where findings are kept: the store."""

    def notes(self, space: str) -> dict[str, dict[str, Any]]: ...

    async def put_note(self, space: str, name: str, data: dict[str, Any] | None) -> None: ...


@dataclass(frozen=True, slots=True)
class Traits:
    """How one line is asked at present: `json` is the way JSON is demanded, `without` what it does not take, `settled`
    the names of schemas that it has answered."""

    json: str
    without: frozenset[str] = frozenset()
    settled: frozenset[str] = frozenset()


class Probe:
    """The traits of one line. `ways` of demanding JSON go from the strictest to plain words; `optional` parameters may
    be left out when the server says that it does not know them."""

    def __init__(
        self,
        line: str,
        *,
        ways: tuple[str, ...],
        optional: tuple[str, ...],
        without: frozenset[str] = frozenset(),
        notes: Notes | None = None,
    ) -> None:
        self.line = line
        self.ways = ways
        self.optional = optional
        self.traits = self.kept = Traits(ways[0], without)
        self._notes = notes
        self._turn = asyncio.Lock()
        self.recalled = notes is None

    async def recall(self) -> None:
        """Begin with what was found out before: to be awaited before the first request, unless `recalled`. The notes
        are read in a thread: a server that keeps them may be slow, or away for minutes."""
        async with self._turn:
            if self.recalled or self._notes is None:
                return
            note = (await asyncio.to_thread(self._notes.notes, SPACE)).get(self.line)
            if note and note["age"] < REMEMBERED_SECONDS and note["json"] in self.ways:
                without, settled = self.traits.without | frozenset(note["without"]), frozenset(note["settled"])
                self.traits = self.kept = Traits(note["json"], without, settled)
            self.recalled = True

    def refused(self, error: BadRequest, sent: Traits, schema_name: str) -> bool:
        """Whether asking differently may help; if so, `traits` say how."""
        if sent != self.traits:
            return True  # another request found it out meanwhile
        changed = self._changed(error, sent, schema_name)
        if changed is None and schema_name and not sent.settled:
            self.traits = replace(sent, json=self.ways[0])  # it was not about JSON after all
        self.traits = changed or self.traits
        return changed is not None

    def ignored(self, sent: Traits) -> bool:
        """An answer did not fit a demand that has never been met: whether there is a plainer one to try."""
        if sent.settled or self.traits.settled:
            return False
        if sent != self.traits:
            return True
        changed = self._plainer(sent, "the answer is not what was demanded", passing="bare")
        self.traits = changed or sent
        return changed is not None

    async def answered(self, sent: Traits, schema_name: str) -> None:
        """An answer came, and fits its demand for JSON if it had one: what was found out on the way is kept."""
        if schema_name and schema_name not in self.traits.settled and sent.json == self.traits.json:
            self.traits = replace(self.traits, settled=self.traits.settled | {schema_name})
        if self.traits is not self.kept:
            kept = self.kept = self.traits
            if self._notes is not None:
                note = {"json": kept.json, "without": sorted(kept.without), "settled": sorted(kept.settled)}
                await self._notes.put_note(SPACE, self.line, note)

    def _changed(self, error: BadRequest, sent: Traits, schema_name: str) -> Traits | None:
        said = error.said
        if error.status not in (400, 422):
            return None
        if _REFUSES.search(said.text):
            parameter = said.param if said.param in self.optional else _first_named(said.message, self.optional)
            if parameter and parameter not in sent.without:
                log("parameter refused", model=self.line, parameter=parameter, words=said.message)
                return replace(sent, without=sent.without | {parameter})
        if schema_name and schema_name not in sent.settled and _ABOUT_JSON.search(f"{said.param} {said.text}"):
            return self._plainer(sent, said.message)
        return None

    def _plainer(self, sent: Traits, words: str, *, passing: str = "") -> Traits | None:
        at = self.ways.index(sent.json) + 1
        at += self.ways[at : at + 1] == (passing,)  # who ignores a schema ignores it without its bounds, too
        if at == len(self.ways):
            return None
        log("json mode refused", model=self.line, mode=sent.json, next=self.ways[at], words=words)
        return replace(sent, json=self.ways[at])


def _first_named(message: str, optional: tuple[str, ...]) -> str | None:
    """The first of the parameters that the words name."""
    found = [(hit.start(), name) for name in optional if (hit := re.search(rf"\b{name}\b", message))]
    return min(found)[1] if found else None
