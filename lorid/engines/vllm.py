"""StudentTextEngine over vLLM: one base in memory, triples beside it, one batch for all.

    engine = VllmEngine(student=model, sampling=..., engine=..., num_triples=1)
    await engine.load("mine", adapters={role: folder}, sampling=...)
    completion = await engine.generate(GenerationRequest(question="...", role=role, triple="mine"))

The engine starts with the first call. Every adapter is checked and then added before it is used,
since a request for one that does not fit would end the engine. Without room for triples it serves
a teacher: `complete` takes any user turn. Adapter paths never come from a request.
"""

import asyncio
import logging
import math
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lorid.artifacts.adapters import (
    WEIGHTS_FILE,
    AdapterInfo,
    check_adapter,
    engine_rank,
    read_adapter_config,
)
from lorid.artifacts.triples import file_sha256
from lorid.config import EngineConfig, ModelConfig, SamplingConfig
from lorid.engines.base import Completion, FinishReason, GenerationRequest, Pieces, TextSink
from lorid.engines.settings import engine_arguments, set_environment
from lorid.errors import (
    AdapterMismatch,
    ConfigError,
    EngineDied,
    EngineError,
    PromptTooLong,
    one_line,
)
from lorid.method.roles import Role
from lorid.method.templates import PROBE_QUESTION, encode_prompt, encode_turn, stop_token_ids

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest

PROBE_TOKENS = 24


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Let the process's logs go where they went before, also after the block.

    vLLM sets up its own logging by `dictConfig`, which closes every handler that there is. A
    MemoryHandler, which Ray Serve has before a replica's file, then knows of no file any more, and
    holds each record from then on.
    """
    loggers = [logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))]
    targets = {
        handler: handler.target
        for logger in loggers
        for handler in logger.handlers
        if isinstance(handler, MemoryHandler)
    }
    try:
        yield
    finally:
        for handler, target in targets.items():
            handler.setTarget(target)
            handler.flush()


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """A triple in the engine: vLLM's name of each adapter, and how its texts are drawn.

    None where the adapter is in the model's weights already.
    """

    requests: "Mapping[Role, LoRARequest | None]"
    sampling: SamplingConfig


class VllmEngine:
    """One vLLM engine in this process (CPU) or with its own core process (GPU).

    `num_triples` is how many it has room for, with `num_roles` adapters each; `max_rank`, and the
    ranks of the first triple, decide the rank that all of them may have. `merged_role`: `student`
    is the base with that role's adapter in its weights, and there is room for no other.
    """

    def __init__(
        self,
        *,
        student: ModelConfig,
        sampling: SamplingConfig,
        engine: EngineConfig,
        seed: int = 0,
        num_triples: int = 0,
        max_rank: int | None = None,
        num_roles: int = len(Role),
        merged_role: Role | None = None,
    ) -> None:
        self.num_roles, self.merged_role = num_roles, merged_role
        self.student, self.sampling, self.config, self.seed = student, sampling, engine, seed
        self.num_triples, self.max_rank = num_triples, max_rank or 1
        self.triples: dict[str, _Loaded] = {}
        self.num_added = 0
        self.stop_ids: list[int] = []
        self.base: dict[str, Any] = {}
        self.tokenizer: Any = None
        self.engine: Any = None
        self._started: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the base; does nothing when that is done.

        Raises:
            ConfigError: the base cannot be read.
            EngineError: the engine cannot start.
        """
        if self._started is None:
            self._started = asyncio.create_task(self._start())
        started = self._started
        try:
            # A caller that goes away must not leave half an engine.
            await asyncio.shield(started)
        except Exception:
            if self._started is started:
                await self.aclose()
            raise

    async def generate(
        self, request: GenerationRequest, *, on_text: TextSink | None = None
    ) -> Completion:
        """Write one text in a role's voice; role None asks the base itself.

        Raises:
            AdapterMismatch: the triple is not loaded.
            PromptTooLong: the prompt leaves no room for an answer.
            EngineError: the engine failed.
        """
        loaded = self._loaded(request.triple)
        adapter = self._adapter(loaded, request.role)
        prompt = encode_prompt(
            self.tokenizer,
            family=self.student.family,
            role=request.role or Role.INTUITIVE_REASONER,
            question=request.question,
            knowledge=request.knowledge,
        )
        sampling = loaded.sampling
        if request.max_tokens is not None and request.max_tokens < sampling.max_new_tokens:
            sampling = sampling.model_copy(update={"max_new_tokens": request.max_tokens})
        return await self._sample(
            prompt, adapter=adapter, seed=request.seed, sampling=sampling, on_text=on_text
        )

    async def complete(
        self,
        turn: str,
        *,
        seed: int | None = None,
        sampling: SamplingConfig | None = None,
        schema: Mapping[str, Any] | None = None,
    ) -> Completion:
        """Answer any user turn with the base itself (a teacher); `schema` is of the JSON wanted."""
        await self.start()
        prompt = encode_turn(self.tokenizer, family=self.student.family, text=turn)
        return await self._sample(
            prompt, adapter=None, seed=seed, sampling=sampling or self.sampling, schema=schema
        )

    async def load(
        self, triple: str, *, adapters: Mapping[Role, Path], sampling: SamplingConfig
    ) -> None:
        """See `TripleHost.load`."""
        if triple in self.triples:
            return
        if self.merged_role is not None:
            await self.start()
            self.triples[triple] = _Loaded(requests={self.merged_role: None}, sampling=sampling)
            return
        if len(self.triples) >= self.num_triples:
            raise EngineError(f"this engine holds {self.num_triples} triples, and has them")
        if self.engine is None:
            ranks = [read_adapter_config(folder).r for folder in adapters.values()]
            self.max_rank = max(self.max_rank, *ranks)
        await self.start()
        # Reading weights takes seconds at full size, and questions are being answered meanwhile.
        infos = {
            role: await asyncio.to_thread(self._fitting, role, folder)
            for role, folder in adapters.items()
        }
        await self._let_go_of_strays()
        requests: dict[Role, LoRARequest | None] = {}
        try:
            for role, info in infos.items():
                requests[role] = await self._add(role, info)
        except BaseException:
            await asyncio.shield(self._remove(requests))
            raise
        self.triples[triple] = _Loaded(requests=requests, sampling=sampling)

    async def unload(self, triple: str) -> None:
        """See `TripleHost.unload`."""
        loaded = self.triples.pop(triple, None)
        if loaded is not None:
            await self._remove(loaded.requests)

    async def probe(self, triple: str) -> Mapping[str, str]:
        """A short greedy text from the base, where it is held, and from each role of the triple."""
        loaded = self._loaded(triple)
        prompt = encode_prompt(
            self.tokenizer,
            family=self.student.family,
            role=Role.INTUITIVE_REASONER,
            question=PROBE_QUESTION,
        )
        greedy = loaded.sampling.model_copy(
            update={"temperature": 0.0, "max_new_tokens": PROBE_TOKENS}
        )
        asked: dict[str, LoRARequest | None] = {} if self.merged_role else {"base": None}
        asked |= {str(role): request for role, request in loaded.requests.items()}
        # The same prompt for all: then a text that equals the base's means an idle adapter.
        founds = await asyncio.gather(
            *(
                self._sampled(prompt, adapter=adapter, seed=0, sampling=greedy)
                for adapter in asked.values()
            )
        )
        outputs = [found.outputs[0] for found in founds]
        for name, output in zip(asked, outputs, strict=True):
            if not math.isfinite(output.cumulative_logprob):
                raise AdapterMismatch(f"{name}: its likelihoods are not finite numbers")
        # A lightly trained adapter may write the base's words: its likelihood still differs.
        texts = [f"{output.text.strip()} [{output.cumulative_logprob:.6f}]" for output in outputs]
        return dict(zip(asked, texts, strict=True))

    async def check(self) -> None:
        """Raise EngineError when the engine has died."""
        if self.engine is not None:
            try:
                await self.engine.check_health()
            except Exception as error:
                raise EngineDied(f"the engine has died: {one_line(error)}") from error

    async def aclose(self) -> None:
        """End the engine and what it started."""
        self._started = None
        self.triples = {}
        if self.engine is not None:
            self.engine.shutdown()
            self.engine = None

    async def _start(self) -> None:
        # Minutes for a large base, in which a replica's loop still answers.
        with handlers_kept():
            await asyncio.to_thread(self._load_base)

    def _load_base(self) -> None:
        set_environment(self.config, student=self.student)
        from transformers import AutoConfig, AutoTokenizer
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        source = {"revision": self.student.revision, "trust_remote_code": False}
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(self.student.path, **source)
            self.base = AutoConfig.from_pretrained(self.student.path, **source).to_dict()
        except Exception as error:  # damaged files raise whatever their parsers raise
            cause = f"{type(error).__name__}: {one_line(error, max_chars=160)}"
            raise ConfigError(f"cannot load the model {self.student.path}: {cause}") from error
        arguments = engine_arguments(
            self.config,
            student=self.student,
            seed=self.seed,
            num_triples=self.num_triples,
            max_rank=self.max_rank,
            num_roles=self.num_roles,
        )
        try:
            self.engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
        except Exception as error:
            cause = one_line(error, max_chars=300)
            raise EngineError(f"vLLM cannot start on {self.student.path}: {cause}") from error
        self.stop_ids = stop_token_ids(self.tokenizer, family=self.student.family)

    def _loaded(self, triple: str) -> _Loaded:
        if triple not in self.triples:
            raise AdapterMismatch(f"the triple {triple!r} is not loaded")
        return self.triples[triple]

    def _adapter(self, loaded: _Loaded, role: Role | None) -> "LoRARequest | None":
        if role is None and self.merged_role is None:
            return None
        if role is None or role not in loaded.requests:
            held = ", ".join(loaded.requests)
            raise AdapterMismatch(f"this engine holds {held}, not {role or 'the base itself'}")
        return loaded.requests[role]

    def _fitting(self, role: Role, folder: Path) -> AdapterInfo:
        info = check_adapter(folder, base=self.base)
        room = engine_rank([self.max_rank])
        if info.rank > room:
            raise AdapterMismatch(
                f"{role}: rank {info.rank}, this engine was started for {room}; start it again "
                f"with serving.max_adapter_rank={info.rank}"
            )
        return info

    async def _add(self, role: Role, info: AdapterInfo) -> "LoRARequest":
        from vllm.lora.request import LoRARequest

        # The prefix cache's key holds name and path: new weights need a new name. Numbers are never
        # used twice, so a late step of an old request cannot meet new weights.
        self.num_added += 1
        digest = await asyncio.to_thread(file_sha256, info.folder / WEIGHTS_FILE)
        request = LoRARequest(f"{role}@{digest[:12]}", self.num_added, str(info.folder))
        try:
            added = await self.engine.add_lora(request)
        except Exception as error:
            cause = one_line(error)
            raise AdapterMismatch(f"{role}: vLLM refuses the adapter: {cause}") from error
        if added is False:
            raise AdapterMismatch(f"{role}: vLLM did not take the adapter {info.folder}")
        return request

    async def _remove(self, requests: "Mapping[Role, LoRARequest | None]") -> None:
        for request in filter(None, requests.values()):
            await self.engine.remove_lora(request.lora_int_id)

    async def _let_go_of_strays(self) -> None:
        """Remove adapters that no triple has: an interrupted `load` may have left one."""
        known = {
            request.lora_int_id
            for loaded in self.triples.values()
            for request in filter(None, loaded.requests.values())
        }
        for number in set(await self.engine.list_loras()) - known:
            await self.engine.remove_lora(number)

    async def _sample(
        self,
        prompt: list[int],
        *,
        adapter: "LoRARequest | None",
        seed: int | None,
        sampling: SamplingConfig,
        schema: Mapping[str, Any] | None = None,
        on_text: TextSink | None = None,
    ) -> Completion:
        found = await self._sampled(
            prompt,
            adapter=adapter,
            seed=seed,
            sampling=sampling,
            schema=schema,
            on_text=on_text,
        )
        output = found.outputs[0]
        return Completion(
            text=output.text.strip(),
            finish_reason=cast("FinishReason", output.finish_reason or "abort"),
            num_prompt_tokens=len(prompt),
            num_tokens=len(output.token_ids),
            num_cached_tokens=found.num_cached_tokens or 0,
        )

    async def _sampled(
        self,
        prompt: list[int],
        *,
        adapter: "LoRARequest | None",
        seed: int | None,
        sampling: SamplingConfig,
        schema: Mapping[str, Any] | None = None,
        on_text: TextSink | None = None,
    ) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        room = self.config.max_model_len - len(prompt)
        if room < 1:
            raise PromptTooLong(
                f"the prompt has {len(prompt)} tokens, the engine takes "
                f"{self.config.max_model_len - 1}; shorten it or raise engine.max_model_len"
            )
        params = SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_tokens=min(sampling.max_new_tokens, room),
            seed=seed,
            stop_token_ids=self.stop_ids,
            logprobs=0 if sampling.temperature == 0 else None,
            output_kind=RequestOutputKind.CUMULATIVE if on_text else RequestOutputKind.FINAL_ONLY,
            structured_outputs=StructuredOutputsParams(json=dict(schema)) if schema else None,
        )
        final: Any = None
        pieces = Pieces(on_text)
        try:
            # Leaving this loop early, by cancellation too, aborts the request in the engine.
            async for output in self.engine.generate(
                {"prompt_token_ids": prompt}, params, uuid.uuid4().hex, lora_request=adapter
            ):
                final = output
                pieces.more(output.outputs[0].text)
        except Exception as error:
            cause = one_line(error)
            if self.engine.errored:
                raise EngineDied(f"the engine has died: {cause}") from error
            raise EngineError(f"generation failed: {type(error).__name__}: {cause}") from error
        return final
