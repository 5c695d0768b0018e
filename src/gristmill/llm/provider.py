"""The wire level: one request, one attempt, one reply. Whoever can `send` is a provider; all else is `client`.

How an attempt can fail decides what it costs and who hears of it:

    Refused       not now (429, 529, 503 with a wait): no attempt, never paid; the limiter slows down
    Unanswered    broken off, half, empty or a server's fault: another attempt may help; perhaps paid (`charged`)
    Unusable      this line serves nobody: key, bill, rights, model name. Whoever mends it runs again
    Unreached     nobody listens: tried again like Unanswered, and Unusable once the attempts are used up
    Withheld      an answer was made and paid for, and is no answer (filtered, refused): permanent
    ProviderError any other: this request will never be answered; the words are the provider's
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from gristmill.core.ask import Usage
from gristmill.core.errors import ProviderError
from gristmill.llm.limits.quota import Quota

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked: messages (a chat), a prompt to go on from, or texts to embed."""

    messages: tuple[dict[str, str], ...] = ()
    prompt: str | tuple[int, ...] | None = None
    texts: tuple[str, ...] = ()
    max_tokens: int = 0
    temperature: float = 0.0
    stop: tuple[str, ...] = ()
    schema: Schema | None = None
    schema_name: str = ""
    grammar: str | None = None
    seed: int | None = None  # sent where sampling is random
    fresh: bool = False  # a local model computes all of it anew, whatever its slot holds of the last prompt


@dataclass(slots=True)
class Reply:
    """What came back, in our words. `finish` is stop or length; anything else is an error.

    `text` is the answer alone: what the model thought before it is `reasoning`, however the server sends it.
    """

    text: str
    finish: str
    usage: Usage
    reasoning: str = ""
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    vectors: tuple[tuple[float, ...], ...] = ()
    quota: Quota | None = None


class Provider(Protocol):
    identity: str
    attempts: int

    @property
    def name(self) -> str:
        """The line that limits are counted by: host, model and a hash of the key. Holds no secret."""
        ...

    @property
    def shared(self) -> bool:
        """Whether other processes ask the same server with the same key. An engine of our own is nobody else's."""
        ...

    @property
    def context(self) -> int | None:
        """As in core.ask.Model."""
        ...

    async def send(self, request: Request) -> Reply:
        """One attempt. Raises Unanswered where another attempt may help, any other ProviderError where none will."""
        ...

    def input_bound(self, request: Request) -> int:
        """No fewer tokens than this request will be charged for as input."""
        ...

    async def close(self) -> None: ...


class Unanswered(ProviderError):
    """An attempt that failed in a way that passes. `charged`: nobody knows whether it was paid for; `usage`: what it
    cost, where the provider said so."""

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        status: int | None = None,
        retry_after: float | None = None,
        charged: bool = False,
        quota: Quota | None = None,
        usage: Usage | None = None,
    ) -> None:
        ProviderError.__init__(self, message, hint, transient=True, status=status)
        self.retry_after = retry_after
        self.charged = charged
        self.quota = quota
        self.usage = usage


class Refused(Unanswered):
    """The provider is busy and says so. Not an attempt: whoever waits as told is answered. Never paid."""


class Unusable(ProviderError):
    """About the line, not the request: no request is answered until a person mends it, and then this one is too."""

    def __init__(self, message: str, hint: str = "", *, status: int | None = None) -> None:
        super().__init__(message, hint, transient=True, status=status)


class Unreached(Unanswered, Unusable):
    """Nobody listens at the address. A server that is being started passes; one that stays away is Unusable."""


class Withheld(ProviderError):
    """The model answered and the answer is none: filtered, or refused. Permanent, and paid: as `usage`
    says, or nobody knows how much."""

    def __init__(self, message: str, hint: str = "", *, usage: Usage | None = None) -> None:
        super().__init__(message, hint, status=200)
        self.usage = usage


def split_reasoning(text: str) -> tuple[str, str]:
    """The answer and the thoughts before it, for models that write both into one text.

    Some templates open the thoughts themselves, so that the model only closes them."""
    if "</think>" not in text:
        opened = text.lstrip()
        return ("", opened.removeprefix("<think>").strip()) if opened.startswith("<think>") else (text, "")
    thoughts, _, answer = text.partition("</think>")
    before, opened, inside = thoughts.partition("<think>")
    if opened and before.strip():  # an answer that speaks of the tag
        return text, ""
    return answer.lstrip(), (inside or before).strip()
