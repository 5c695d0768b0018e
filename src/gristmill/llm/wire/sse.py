"""Server-sent events out of bytes that come split anywhere (WHATWG HTML, 9.2), as models' servers send them."""

from __future__ import annotations

import re

_LINE_END = re.compile(rb"\r\n|\n|\r")
_MARK = b"\xef\xbb\xbf"


class EventParser:
    """Give it bytes, take whole events: their data, lines joined by newlines.

    Comments, names, ids and retry times are left out: models' servers say it all in the data. llama.cpp alone sends
    an `error` field; it comes as the object that others would have sent.
    """

    def __init__(self) -> None:
        self._line = b""  # not ended yet
        self._data: list[bytes] = []
        self._begun = False

    def feed(self, piece: bytes) -> list[bytes]:
        """The events that this piece completes."""
        looked = max(0, len(self._line) - 1)
        text = self._line + piece
        if not self._begun:
            if len(text) < len(_MARK) and _MARK.startswith(text):
                self._line = text
                return []
            text, self._begun, looked = text.removeprefix(_MARK), True, 0
        events: list[bytes] = []
        start = 0
        for end in _LINE_END.finditer(text, looked):
            if end[0] == b"\r" and end.end() == len(text):
                break  # perhaps half a line end
            self._take(text[start : end.start()], events)
            start = end.end()
        self._line = text[start:]
        return events

    def rest(self) -> list[bytes]:
        """The event that the end of the stream completes: not every server ends its last one with an empty line."""
        events: list[bytes] = []
        self._take(self._line.removesuffix(b"\r"), events)
        self._take(b"", events)
        self._line = b""
        return events

    def _take(self, line: bytes, events: list[bytes]) -> None:
        if not line:
            if self._data:
                events.append(b"\n".join(self._data))
                self._data = []
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"error":
            self._data.append(b'{"error":%b}' % value)
