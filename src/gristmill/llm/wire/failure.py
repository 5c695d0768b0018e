"""A server's refusal as the class of failure it is, in the server's own words.

The status decides; the words decide where providers disagree about statuses: an empty account is 402 at some, 429 or
400 at others; a model nobody knows is 404 or 400; a gateway hides its upstream's status in a 200.
Sources: the error pages of OpenAI (platform.openai.com/docs/guides/error-codes), Anthropic
(platform.claude.com/docs/en/api/errors) and OpenRouter (openrouter.ai/docs/api-reference/errors).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from gristmill.core.errors import ProviderError
from gristmill.core.secrets import scrub
from gristmill.llm.limits.quota import read_quota, read_wait
from gristmill.llm.provider import Refused, Unanswered, Unusable

SHOWN = 500  # characters of a provider's words

_HINTS = {
    401: "Check the variable that `api_key` names, and that it holds a valid key.",
    402: "The account behind the key has no money left, or has reached its limit.",
    403: "The key is known but may not do this; a proxy or firewall may also say so.",
    404: "Check base_url (it ends in /v1 on most servers) and the model's name.",
    413: "Send less text per request: smaller chunks.",
}
_PASSING = frozenset({408, 409, 425})
_PERHAPS_PAID = frozenset({408, 502, 504, 520, 522, 524})  # somebody behind the one who answers may have done the work
_MONEY = re.compile(
    r"insufficient_quota|insufficient[ _](?:balance|credits?|funds)|billing|spend[ _]limit|credit balance|"
    r"specified (?:api|workspace) usage limits|exceeded your current quota|payment required",
    re.IGNORECASE,
)
_NO_MODEL = re.compile(r"model_not_found|invalid_model|model .{0,80}(?:does not exist|not found)", re.IGNORECASE)
_ABOUT_CONTENT = re.compile(r"moderation|flagged|content.(?:filter|policy)|safety", re.IGNORECASE)
_FAILED_JSON = re.compile(r"json_validate_failed", re.IGNORECASE)  # Groq: its model wrote no JSON this time


class Complaint(NamedTuple):
    """What an error's body says. `kind` holds the type and code, where it names them."""

    message: str
    kind: str = ""
    param: str = ""

    @property
    def text(self) -> str:
        return f"{self.kind} {self.message}"


class BadRequest(ProviderError):
    """The server does not take this request. Permanent, unless it is mended by leaving out what it complains of."""

    def __init__(self, message: str, hint: str = "", *, status: int, said: Complaint) -> None:
        super().__init__(message, hint, status=status)
        self.said = said


def failure(url: str, status: int, headers: Mapping[str, str], raw: bytes) -> ProviderError:
    """Any status but 2xx."""
    said = complaint(raw)
    request = headers.get("x-request-id") or headers.get("request-id")
    message = f"{url} answered {status}: {said.message}" + (scrub(f" (request {request})") if request else "")
    if status == 429 and _MONEY.search(said.text):
        return Unusable(message, _HINTS[402], status=status)
    if status in (429, 529) or (status == 503 and read_wait(headers) is not None):
        return Refused(message, status=status, retry_after=read_wait(headers), quota=read_quota(headers))
    if status in _PASSING or status >= 500:
        wait, paid = read_wait(headers), status in _PERHAPS_PAID
        return Unanswered(message, status=status, retry_after=wait, charged=paid, quota=read_quota(headers))
    if 300 <= status < 400:
        target = headers.get("Location", "elsewhere")
        return Unusable(f"{url} answered {status}: moved to {scrub(target)}", "Set base_url to the new address.")
    return _final(message, said, status)


def _final(message: str, said: Complaint, status: int) -> ProviderError:
    if _ABOUT_CONTENT.search(said.text) and status in (400, 403):
        return BadRequest(message, status=status, said=said)
    if status in (401, 402, 403, 404):
        return Unusable(message, _HINTS[status], status=status)
    if _MONEY.search(said.text):
        return Unusable(message, _HINTS[402], status=status)
    if _NO_MODEL.search(said.text):
        return Unusable(message, _HINTS[404], status=status)
    if _FAILED_JSON.search(said.kind):
        return Unanswered(message, status=status, charged=True)
    return BadRequest(message, _HINTS.get(status, ""), status=status, said=said)


def hidden_failure(url: str, body: Mapping[str, Any]) -> ProviderError | None:
    """The failure in a body that came with status 200, as gateways send it when their upstream fails; None if none."""
    error = body.get("error")
    if not error:
        return None
    code = error.get("code") if isinstance(error, dict) else None
    if not (isinstance(code, int) and 400 <= code < 600):
        kinds = complaint_of(body).kind.split(" ")
        code = next((_STATUS_OF[kind] for kind in kinds if kind in _STATUS_OF), 502)
    return failure(url, code, {}, orjson.dumps(body))


_STATUS_OF = {
    "overloaded_error": 529, "rate_limit_error": 429, "api_error": 500, "timeout_error": 504,
    "invalid_request_error": 400, "authentication_error": 401, "billing_error": 402, "permission_error": 403,
    "not_found_error": 404, "request_too_large": 413, "rate_limit_exceeded": 429,
}  # fmt: skip


def complaint(raw: bytes) -> Complaint:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return Complaint(scrub(raw.decode(errors="replace").strip()[:SHOWN]) or "(nothing)")
    return complaint_of(body)


def complaint_of(body: Any) -> Complaint:
    """{"error": {…}} (OpenAI, Anthropic), a list of it (Gemini), {"message": …} (Mistral), {"detail": …} (FastAPI)."""
    if isinstance(body, list) and body:
        body = body[0]
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return Complaint(_short(error))
    message = error.get("message") or error.get("detail") or error
    details = error.get("details")
    more = details.get("error_code") if isinstance(details, dict) else None
    kind = " ".join(str(part) for part in (error.get("type"), error.get("code"), more) if part)
    return Complaint(_short(message), kind, str(error.get("param") or ""))


def words_of(raw: bytes) -> str:
    """The provider's own words about a failure, as short as they can be found."""
    return complaint(raw).message


def _short(said: Any) -> str:
    text = said if isinstance(said, str) else orjson.dumps(said).decode()
    return scrub(text[: 4 * SHOWN])[:SHOWN]
