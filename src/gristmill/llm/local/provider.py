"""A model on this machine. The one renderer turns messages into token ids; the engine never sees text or a template.

So what a model is asked in an exam or a chat is, token for token, what its training showed it, and nothing inside a
message can become a special token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gristmill.core.errors import ConfigError, ProviderError
from gristmill.core.records import Message
from gristmill.llm.local.engine import EngineSettings, LocalEngine, default_threads
from gristmill.llm.provider import Reply, Request, Unanswered, split_reasoning
from gristmill.llm.providers.openai_reply import read_completion
from gristmill.llm.spec import LocalSpec, StageSpec, local_identity
from gristmill.llm.wire.http import Wire
from gristmill.models.gguf_file import is_gguf
from gristmill.models.renderer import Renderer
from gristmill.models.weights import Weights

if TYPE_CHECKING:
    from gristmill.models.gguf import Quantization

SAMPLING = {"top_k": 40, "top_p": 0.95, "min_p": 0.05}
"""llama.cpp's own defaults, said aloud: an update of the engine must not change what a stored answer stands for."""


CERTAIN = 1000.0  # added to a token's logit: nothing else can be drawn
KEPT_PROMPTS = 128  # rendered and not all sent yet; more than the requests under way


class LocalProvider:
    """Weights behind an engine that starts with the first request."""

    attempts = 3  # an engine that died is started again
    shared = False

    def __init__(
        self,
        spec: LocalSpec | StageSpec,
        weights: Weights,
        *,
        quantization: str | None,
        workspace: Path,
        emit: Callable[..., None],
    ) -> None:
        if weights.form == "gguf" and not is_gguf(weights.path):
            raise ConfigError(f"{weights.path} is not a GGUF file", "Give the path of a GGUF model.")
        if quantization not in (None, "q8_0", "f16"):
            raise ConfigError(f"unknown quantization {quantization}", "Known: q8_0, f16.")
        self.renderer = Renderer.load(weights)
        self.identity = local_identity(weights.sha256, self.renderer.template_hash, quantization)
        self.name = f"local {weights.path.name} {quantization}" if quantization else f"local {weights.path.name}"
        self.context = min(spec.context, self.renderer.context)
        self.prompt_cache = spec.prompt_cache
        self._weights = weights
        self._quantization = quantization
        self._settings = EngineSettings(spec.concurrency, self.context, spec.threads or default_threads())
        self._workspace = workspace
        self._emit = emit
        self._prompts: dict[int, tuple[object, list[int]]] = {}  # by identity; what is kept keeps its own
        self._engine: LocalEngine | None = None
        self._proven: Wire | None = None  # to an engine that ends its answers as it should
        self._starting = asyncio.Lock()

    async def send(self, request: Request) -> Reply:
        ids = self._rendered(request)
        if len(ids) >= self.context:
            raise ProviderError(
                f"the prompt takes {len(ids)} tokens, and the model's context holds {self.context}",
                "Raise the model's `context`, or send smaller chunks.",
                status=400,
                transient=True,  # with a larger context the next run may ask it
            )
        wire = await self._wire()
        try:
            answer, _ = await wire.post("/v1/completions", self._body(request, ids))
        except Unanswered as error:
            raise await self._examined(error) from error
        reply = read_completion(answer)
        if request.grammar and not reply.text:
            # llama.cpp does not refuse a malformed grammar: it answers nothing, as if that were an answer
            raise ProviderError("the grammar is malformed or admits an empty answer", "Check the GBNF.", status=400)
        if request.prompt is None:
            reply.text, reply.reasoning = split_reasoning(reply.text)
        return reply

    def input_bound(self, request: Request) -> int:
        return len(self._rendered(request))

    async def close(self) -> None:
        if self._engine is not None:
            await self._engine.stop()
            self._engine = self._proven = None

    def _rendered(self, request: Request) -> list[int]:
        """The prompt's tokens. A request is looked at before it is sent, and again when it is; it is rendered once."""
        asked = request.messages or request.prompt
        kept = self._prompts.get(id(asked))
        if kept is None or kept[0] is not asked:
            if len(self._prompts) >= KEPT_PROMPTS:
                self._prompts.pop(next(iter(self._prompts)))
            kept = self._prompts[id(asked)] = (asked, self._ids(request))
        return kept[1]

    def _ids(self, request: Request) -> list[int]:
        if request.texts:
            raise ProviderError("local models give no embeddings", "Use a server with an embedding model.", status=400)
        if request.prompt is None:
            messages = [Message.model_validate(m) for m in request.messages]
            return self.renderer.chat(messages, generate=True).ids
        if isinstance(request.prompt, tuple):
            return list(request.prompt)
        begin = [self.renderer.bos] if self.renderer.bos is not None else []
        return begin + self.renderer.encode(request.prompt)

    def _body(self, request: Request, ids: list[int]) -> dict[str, Any]:
        body: dict[str, Any] = {
            "prompt": ids,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "cache_prompt": self.prompt_cache and not request.fresh,
        }
        if request.temperature > 0:
            body |= {**SAMPLING, "seed": request.seed}
        if request.stop:
            body["stop"] = request.stop
        if request.schema is not None:
            body["json_schema"] = request.schema
        if request.grammar is not None:
            body["grammar"] = request.grammar
        if request.prompt is not None:
            body["logprobs"] = 1
        return body

    async def _wire(self) -> Wire:
        """To an engine that lives: the one there is, or a new one."""
        if self._proven is not None and self._engine is not None and self._engine.alive:
            return self._proven
        async with self._starting:
            if self._engine is None:
                self._engine = LocalEngine(await self._gguf(), self._settings, log=self._log(), emit=self._emit)
            if self._proven is None or not self._engine.alive:
                self._proven = None
                await self._engine.stop()
                wire = await self._engine.start()
                await self._prove_stops(wire)
                self._proven = wire
            return self._proven

    async def _prove_stops(self, wire: Wire) -> None:
        """Whether the engine ends an answer at every token that ends a turn in the model's own template: each is made
        the only one that it can write. What it reads out of the file it keeps to itself."""
        for stop in sorted(self.renderer.stop_ids):
            body = {
                "prompt": [stop],
                "max_tokens": 2,
                "temperature": 0,
                "logit_bias": [[stop, CERTAIN]],
                "cache_prompt": False,
            }
            answer, _ = await wire.post("/v1/completions", body)
            if read_completion(answer).finish != "stop":
                raise ConfigError(
                    f"{self._weights.path.name}: llama.cpp does not end an answer at "
                    f"{self.renderer.decode([stop], special=True)}, as the model's template does",
                    "Name that token as tokenizer.ggml.eot_token_id in the file.",
                )

    async def _gguf(self) -> Path:
        if self._weights.form == "gguf" and self._quantization is None:
            return self._weights.path
        from gristmill.models.gguf import prepare

        cache = self._workspace / "cache" / "gguf"
        quantization = cast("Quantization | None", self._quantization)
        return await asyncio.to_thread(prepare, self._weights, quantization=quantization, cache=cache)

    def _log(self) -> Path:
        made = self._quantization or "plain"  # an exam may hold the same weights twice
        return self._workspace / "logs" / f"engine-{self._weights.sha256[:12]}-{made}.log"

    async def _examined(self, error: Unanswered) -> Unanswered:
        """The failure, with the engine's last words if it died of it."""
        await asyncio.sleep(0.1)  # the connection breaks before the process is reaped
        if self._engine is None or self._engine.alive:
            return error
        return Unanswered(f"the engine of {self._weights.path.name} died: {self._engine.tail()}", charged=False)
