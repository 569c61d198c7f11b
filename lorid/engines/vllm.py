"""TextEngine over vLLM: one base in memory, the three adapters beside it, one batch for all.

    engine = VllmEngine(student=model, adapters={role: folder}, sampling=..., engine=...)
    completion = await engine.generate(GenerationRequest(question="...", role=role, seed=1))

The engine starts with the first call. Every adapter is checked and then added before it is used,
since a request for one that does not fit would end the engine. Without adapters it serves a
teacher: `complete` takes any user turn. Adapter paths never come from a request.
"""

import asyncio
import hashlib
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lorid.config import EngineConfig, ModelConfig, SamplingConfig
from lorid.engines.adapters import WEIGHTS_FILE, check_adapter, engine_rank
from lorid.engines.base import Completion, FinishReason, GenerationRequest
from lorid.errors import AdapterMismatch, ConfigError, EngineError, PromptTooLong
from lorid.method.roles import Role
from lorid.method.templates import encode_prompt, encode_turn, stop_token_ids

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest

PROBE_QUESTION = "Tom has 3 apples and finds 4 more apples. How many apples are there now?"
PROBE_TOKENS = 24


class VllmEngine:
    """One vLLM engine in this process (CPU) or with its own core process (GPU)."""

    def __init__(
        self,
        *,
        student: ModelConfig,
        adapters: Mapping[Role, Path],
        sampling: SamplingConfig,
        engine: EngineConfig,
        seed: int = 0,
    ) -> None:
        self.student, self.sampling, self.config, self.seed = student, sampling, engine, seed
        self.adapter_folders = dict(adapters)
        self.requests: dict[Role, LoRARequest] = {}
        self.stop_ids: list[int] = []
        self.tokenizer: Any = None
        self.engine: Any = None
        self._started: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load base and adapters; does nothing when that is done.

        Raises:
            AdapterMismatch: an adapter does not fit the base.
            EngineError: the engine cannot start.
        """
        if self._started is None:
            self._started = asyncio.create_task(self._start())
        started = self._started
        try:
            # A caller that goes away must not leave an engine without its adapters.
            await asyncio.shield(started)
        except Exception:
            if self._started is started:
                await self.aclose()
            raise

    async def generate(self, request: GenerationRequest) -> Completion:
        """Write one text in a role's voice; role None asks the base itself.

        Raises:
            PromptTooLong: the prompt leaves no room for an answer.
            EngineError: the engine failed.
        """
        await self.start()
        prompt = encode_prompt(
            self.tokenizer,
            family=self.student.family,
            role=request.role or Role.INTUITIVE_REASONER,
            question=request.question,
            knowledge=request.knowledge,
        )
        return await self._sample(prompt, role=request.role, seed=request.seed)

    async def complete(self, turn: str, *, seed: int | None = None) -> Completion:
        """Answer any user turn with the base itself (a teacher)."""
        await self.start()
        prompt = encode_turn(self.tokenizer, family=self.student.family, text=turn)
        return await self._sample(prompt, role=None, seed=seed)

    async def probe(self) -> Mapping[str, str]:
        """A short greedy text from the base and from each role."""
        await self.start()
        prompt = encode_prompt(
            self.tokenizer,
            family=self.student.family,
            role=Role.INTUITIVE_REASONER,
            question=PROBE_QUESTION,
        )
        # The same prompt for all: then a text that equals the base's means an idle adapter.
        roles: tuple[Role | None, ...] = (None, *self.requests)
        greedy = self.sampling.model_copy(
            update={"temperature": 0.0, "max_new_tokens": PROBE_TOKENS}
        )
        outputs = await asyncio.gather(
            *(self._output(prompt, role=role, seed=0, sampling=greedy) for role in roles)
        )
        # A lightly trained adapter may write the base's words: its likelihood still differs.
        texts = [f"{output.text.strip()} [{output.cumulative_logprob:.6f}]" for output in outputs]
        names = ("base", *self.requests)
        return {str(name): text for name, text in zip(names, texts, strict=True)}

    async def check(self) -> None:
        """Raise EngineError when the engine has died."""
        if self.engine is not None:
            try:
                await self.engine.check_health()
            except Exception as error:
                raise EngineError(f"the engine has died: {error}") from error

    async def aclose(self) -> None:
        """End the engine and what it started."""
        self._started = None
        if self.engine is not None:
            self.engine.shutdown()
            self.engine = None

    async def _start(self) -> None:
        self._set_environment()
        from transformers import AutoConfig, AutoTokenizer
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        source = {"revision": self.student.revision, "trust_remote_code": False}
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(self.student.path, **source)
            base = AutoConfig.from_pretrained(self.student.path, **source).to_dict()
        except Exception as error:  # damaged files raise whatever their parsers raise
            cause = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
            raise ConfigError(f"cannot load the model {self.student.path}: {cause}") from error
        checked = [check_adapter(folder, base=base) for folder in self.adapter_folders.values()]
        arguments = self._arguments(max_lora_rank=engine_rank(checked) if checked else None)
        try:
            self.engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
        except Exception as error:
            cause = " ".join(str(error).split())[:300]
            raise EngineError(f"vLLM cannot start on {self.student.path}: {cause}") from error
        self.stop_ids = stop_token_ids(self.tokenizer, family=self.student.family)
        await self._add_adapters()

    def _set_environment(self) -> None:
        defaults = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
        if not self.config.num_gpus:
            # Two spinning OpenMP pools on few cores made decoding ten times slower: one process,
            # one pool. vLLM takes the single process only when told so before it is imported.
            threads = str(self.config.num_threads)
            defaults |= {
                "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
                "VLLM_CPU_KVCACHE_SPACE": str(self.config.cpu_kv_cache_gib),
                "OMP_NUM_THREADS": threads,
            }
            os.environ["OMP_NUM_THREADS"] = threads
        if Path(self.student.path).is_dir():
            defaults["HF_HUB_OFFLINE"] = "1"
        for key, value in defaults.items():
            os.environ.setdefault(key, value)

    def _arguments(self, *, max_lora_rank: int | None) -> dict[str, Any]:
        config = self.config
        arguments: dict[str, Any] = {
            "model": self.student.path,
            "revision": self.student.revision,
            "dtype": self.student.dtype,
            "max_model_len": config.max_model_len,
            "max_num_seqs": config.max_num_seqs,
            "max_num_batched_tokens": config.max_num_batched_tokens,
            "tensor_parallel_size": config.tensor_parallel_size,
            "enable_prefix_caching": True,
            "trust_remote_code": False,
            "load_format": "safetensors",
            "seed": self.seed,
            "disable_log_stats": True,
            "enable_log_requests": False,
        }
        if config.num_gpus:
            arguments["gpu_memory_utilization"] = config.gpu_memory_utilization
        else:
            arguments["distributed_executor_backend"] = "uni"
            # Compiling costs the teacher 15 s of start-up and gains nothing at this size.
            arguments["enforce_eager"] = True
            # A seeded request whose prompt is split over two steps ends the engine on the CPU
            # ("CPU Generator does not use offset", vLLM 0.32): prompts are read whole.
            arguments["enable_chunked_prefill"] = False
        if max_lora_rank is not None:
            # On the CPU a request without an adapter takes the weights of the last slot when others
            # of its batch have one (index -1, vLLM 0.32): that slot stays empty, all zeros.
            num_slots = len(self.adapter_folders) + (0 if config.num_gpus else 1)
            arguments |= {
                "enable_lora": True,
                "max_loras": num_slots,
                "max_cpu_loras": num_slots,
                "max_lora_rank": max_lora_rank,
            }
        return arguments

    async def _add_adapters(self) -> None:
        from vllm.lora.request import LoRARequest

        for number, (role, folder) in enumerate(self.adapter_folders.items(), start=1):
            # The prefix cache's key holds name and path: new weights need a new name.
            digest = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()[:12]
            request = LoRARequest(f"{role}@{digest}", number, str(folder))
            try:
                added = await self.engine.add_lora(request)
            except Exception as error:
                cause = " ".join(str(error).split())[:200]
                raise AdapterMismatch(f"{role}: vLLM refuses the adapter: {cause}") from error
            if added is False:
                raise AdapterMismatch(f"{role}: vLLM did not take the adapter {folder}")
            self.requests[role] = request

    async def _sample(
        self, prompt: list[int], *, role: Role | None, seed: int | None
    ) -> Completion:
        output = await self._output(prompt, role=role, seed=seed, sampling=self.sampling)
        return Completion(
            text=output.text.strip(),
            finish_reason=cast("FinishReason", output.finish_reason or "abort"),
            num_prompt_tokens=len(prompt),
            num_tokens=len(output.token_ids),
        )

    async def _output(
        self, prompt: list[int], *, role: Role | None, seed: int | None, sampling: SamplingConfig
    ) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        room = self.config.max_model_len - len(prompt)
        if room < 1:
            raise PromptTooLong(
                f"the prompt has {len(prompt)} tokens, the engine takes "
                f"{self.config.max_model_len - 1}; shorten it or raise engine.max_model_len"
            )
        if role is not None and role not in self.requests:
            raise AdapterMismatch(f"no adapter of {role} is loaded")
        params = SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_tokens=min(sampling.max_new_tokens, room),
            seed=seed,
            stop_token_ids=self.stop_ids,
            logprobs=0 if sampling.temperature == 0 else None,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        adapter = None if role is None else self.requests[role]
        final: Any = None
        try:
            # Leaving this loop early, by cancellation too, aborts the request in the engine.
            async for output in self.engine.generate(
                {"prompt_token_ids": prompt}, params, uuid.uuid4().hex, lora_request=adapter
            ):
                final = output
        except Exception as error:
            cause = " ".join(str(error).split())[:200]
            raise EngineError(f"generation failed: {type(error).__name__}: {cause}") from error
        return final.outputs[0]
