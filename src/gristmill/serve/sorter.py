"""The HTTP face of a classifier: POST /classify takes a text or several and gives the class of each with the
probabilities of all, in the shape that vLLM gives it. Doors as those of the chat (`serve.app`)."""

from __future__ import annotations

import time
import uuid
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gristmill.core.secrets import resolve
from gristmill.models.classifier import Classifier
from gristmill.serve.app import admit, base_app, body_of
from gristmill.serve.wire import ApiError

MOST_TEXTS = 256


class SortRequest(BaseModel):
    """What is asked: OpenAI's words for embeddings, as vLLM takes them."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = None
    input: str | Annotated[list[str], Field(min_length=1, max_length=MOST_TEXTS)]


def make_sorter(
    classifier: Classifier, *, model_id: str, api_key: str | None = None, hosts: list[str] | None = None
) -> FastAPI:
    """The application: one text after another, in threads of the server."""
    locked = resolve(api_key) if api_key else None
    app = base_app(alive=lambda: True, model_id=model_id, locked=locked, hosts=hosts)

    @app.post("/classify")
    async def classify(request: Request) -> Response:
        admit(request, locked)
        asked = _read(await body_of(request), model_id)
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        found = [await run_in_threadpool(classifier.probabilities, text) for text in texts]
        tokens = await run_in_threadpool(lambda: sum(len(classifier.tokens(text)) for text in texts))
        return JSONResponse(
            {
                "id": f"classify-{uuid.uuid4().hex}",
                "object": "list",
                "created": int(time.time()),
                "model": model_id,
                "data": [_row(number, shares) for number, shares in enumerate(found)],
                "usage": {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens},
            }
        )

    return app


def _read(raw: bytes, model_id: str) -> SortRequest:
    try:
        asked = SortRequest.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise ApiError(422, f"{where}: {first['msg']}", code="invalid_request") from error
    if asked.model not in (None, model_id):
        message = f"the model {asked.model!r} is not served here; this is {model_id!r}"
        raise ApiError(404, message, code="model_not_found")
    return asked


def _row(number: int, shares: dict[str, float]) -> dict[str, Any]:
    """`probs` are in the order of the model's classes."""
    best = max(shares, key=lambda name: shares[name])
    return {"index": number, "label": best, "probs": list(shares.values()), "num_classes": len(shares)}
