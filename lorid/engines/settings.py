"""How lorid sets vLLM up: its environment and its arguments.

set_environment(config, student=model)      # before vllm is imported
AsyncEngineArgs(**engine_arguments(config, student=model, ...))
"""

import os
from pathlib import Path
from typing import Any

from lorid.artifacts.adapters import engine_rank
from lorid.config import EngineConfig, ModelConfig
from lorid.method.roles import Role

# The fewest that its kernels on the CPU are made for; on GPUs vLLM's own 16 stays.
CPU_BLOCK_TOKENS = 32
# vLLM's worker with operators that copy no adapter for each token.
CPU_LORA_WORKER = "lorid.engines.cpu_lora.GroupedLoraWorker"


def set_environment(config: EngineConfig, *, student: ModelConfig) -> None:
    """What vLLM reads from the environment when it is imported."""
    defaults = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    if not config.num_gpus:
        # Two spinning OpenMP pools on few cores made decoding ten times slower: one process,
        # one pool. vLLM takes the single process only when told so before it is imported.
        threads = str(config.num_threads)
        defaults |= {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_KVCACHE_SPACE": str(config.cpu_kv_cache_gib),
            "OMP_NUM_THREADS": threads,
        }
        os.environ["OMP_NUM_THREADS"] = threads
        if config.tensor_parallel_size > 1:
            # Left to itself, vLLM asks for a memory node for each worker, and takes all its cores.
            defaults["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    if Path(student.path).is_dir():
        defaults["HF_HUB_OFFLINE"] = "1"
    for key, value in defaults.items():
        os.environ.setdefault(key, value)


def engine_arguments(
    config: EngineConfig,
    *,
    student: ModelConfig,
    seed: int,
    num_triples: int,
    max_rank: int,
    num_roles: int = len(Role),
) -> dict[str, Any]:
    """The arguments of vLLM's `AsyncEngineArgs`."""
    arguments: dict[str, Any] = {
        "model": student.path,
        "revision": student.revision,
        "dtype": student.dtype,
        "max_model_len": config.max_model_len,
        "max_num_seqs": config.max_num_seqs,
        "max_num_batched_tokens": config.max_num_batched_tokens,
        "tensor_parallel_size": config.tensor_parallel_size,
        "enable_prefix_caching": True,
        "trust_remote_code": False,
        "load_format": "safetensors",
        "seed": seed,
        "disable_log_stats": True,
        "enable_log_requests": False,
    }
    if config.num_gpus:
        arguments["gpu_memory_utilization"] = config.gpu_memory_utilization
        if config.tensor_parallel_size > 1:
            # Left to itself, vLLM takes Ray where an actor has a placement group.
            arguments["distributed_executor_backend"] = "mp"
    else:
        # More than one worker cannot share this process; asked to, vLLM waits for ever.
        arguments["distributed_executor_backend"] = (
            "uni" if config.tensor_parallel_size == 1 else "mp"
        )
        # Only whole blocks are kept for later; vLLM's 128 are more than the demo's prompts have.
        arguments["block_size"] = CPU_BLOCK_TOKENS
        # Compiling costs the teacher 15 s of start-up and gains nothing at this size.
        arguments["enforce_eager"] = True
        # A seeded request whose prompt is split over two steps ends the engine on the CPU
        # ("CPU Generator does not use offset", vLLM 0.32): prompts are read whole.
        arguments["enable_chunked_prefill"] = False
    if num_triples:
        # On the CPU a request without an adapter takes the weights of the last slot when others
        # of its batch have one (index -1, vLLM 0.32): that slot stays empty, all zeros. vLLM
        # fills the lowest free slot, and `load` never lets it hold more than the others.
        num_slots = num_triples * num_roles + (0 if config.num_gpus else 1)
        arguments |= {
            "enable_lora": True,
            "max_loras": num_slots,
            "max_cpu_loras": num_slots,
            "max_lora_rank": engine_rank([max_rank]),
        }
        if not config.num_gpus:
            arguments["worker_cls"] = CPU_LORA_WORKER
    return arguments
