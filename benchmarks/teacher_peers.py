"""Peers of the API teacher: each asks the same server for the same prompts.

    python benchmarks/teacher_peers.py async --url http://127.0.0.1:8000/v1 --in-flight 64 \\
        --prompts prompts.jsonl --out texts.jsonl

`sequential`: one request after the other. `async`: the openai client, a semaphore, gather. `ray`:
the HTTP stage of ray.data.llm. `curator`: bespokelabs-curator, cache of responses written as it
always is. Prompts are lines of `id` and `prompt`, results lines of `id` and `text`. Imports nothing
of lorid, so that a peer may run in an environment of its own.
"""

import argparse
import asyncio
import json
import os
import tempfile
from pathlib import Path

Rows = list[dict[str, str]]
ROWS_PER_BATCH = 4


def sequential(args: argparse.Namespace, rows: Rows) -> Rows:
    """A loop."""
    from openai import OpenAI

    client = OpenAI(base_url=args.url, api_key="none")
    texts = []
    for row in rows:
        answer = client.chat.completions.create(**request(args, row["prompt"]))
        texts.append({"id": row["id"], "text": answer.choices[0].message.content or ""})
    return texts


def plain_async(args: argparse.Namespace, rows: Rows) -> Rows:
    """A semaphore and gather; the client's own retries."""
    from openai import AsyncOpenAI

    async def ask_all() -> Rows:
        client = AsyncOpenAI(base_url=args.url, api_key="none", max_retries=20)
        semaphore = asyncio.Semaphore(args.in_flight)

        async def ask(row: dict[str, str]) -> dict[str, str]:
            async with semaphore:
                answer = await client.chat.completions.create(**request(args, row["prompt"]))
            return {"id": row["id"], "text": answer.choices[0].message.content or ""}

        return await asyncio.gather(*(ask(row) for row in rows))

    return asyncio.run(ask_all())


def ray_llm(args: argparse.Namespace, rows: Rows) -> Rows:
    """`ray.data.llm`: as many actors as `--actors` says, since each waits for one answer."""
    import ray
    from ray.data.llm import HttpRequestProcessorConfig, build_processor

    ray.init(num_cpus=args.actors + 1, include_dashboard=False, log_to_driver=False)
    config = HttpRequestProcessorConfig(
        url=f"{args.url}/chat/completions", headers={}, concurrency=args.actors,
        batch_size=ROWS_PER_BATCH, max_retries=20,
        qps=args.requests_per_minute and args.requests_per_minute / 60,
    )  # fmt: skip
    processor = build_processor(
        config,
        preprocess=lambda row: {"id": row["id"], "payload": request(args, row["prompt"])},
        postprocess=lambda row: {
            "id": row["id"],
            "text": row["http_response"]["choices"][0]["message"]["content"],
        },
    )
    # Blocks enough for all actors: rows in one block would leave most of them idle.
    blocks = max(1, len(rows) // ROWS_PER_BATCH)
    texts = processor(ray.data.from_items(rows, override_num_blocks=blocks)).take_all()
    ray.shutdown()
    return [{"id": row["id"], "text": row["text"]} for row in texts]


def curator(args: argparse.Namespace, rows: Rows) -> Rows:
    """Curator with the same limits; its tokenizer comes from a file that litellm ships."""
    import litellm  # pyright: ignore[reportMissingImports]

    tokenizers = Path(str(litellm.__file__)).parent / "litellm_core_utils" / "tokenizers"
    os.environ |= {"TIKTOKEN_CACHE_DIR": str(tokenizers), "TELEMETRY_ENABLED": "0"}
    os.environ |= {"CURATOR_DISABLE_RICH_DISPLAY": "1", "HF_HUB_OFFLINE": "1"}
    from bespokelabs.curator import LLM  # pyright: ignore[reportMissingImports]
    from datasets import Dataset

    class Teacher(LLM):
        def prompt(self, row):
            return row["prompt"]

        def parse(self, row, response):
            return {"id": row["id"], "text": response}

    teacher = Teacher(
        model_name=args.model,
        backend="openai",
        generation_params={"temperature": 0.2, "max_tokens": 512},
        backend_params={
            "base_url": args.url, "api_key": "none", "max_concurrent_requests": args.in_flight,
            "max_requests_per_minute": args.requests_per_minute or 10**6,
            "max_tokens_per_minute": 10**9,
        },
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        answered = teacher(Dataset.from_list(rows), working_dir=folder).dataset
        return [{"id": row["id"], "text": row["text"]} for row in answered]


def request(args: argparse.Namespace, prompt: str) -> dict:
    """What is asked of the server."""
    return {
        "model": args.model,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0.2,
        "max_tokens": 512,
    }


PEERS = {"sequential": sequential, "async": plain_async, "ray": ray_llm, "curator": curator}


def main() -> None:
    """Read, ask, write."""
    parser = argparse.ArgumentParser(description="One peer of the API teacher.")
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", default="teacher")
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--actors", type=int, default=8)
    parser.add_argument("--requests-per-minute", type=int)
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.prompts.read_text().splitlines()]
    texts = PEERS[args.peer](args, rows)
    args.out.write_text("".join(json.dumps(text) + "\n" for text in texts))


if __name__ == "__main__":
    main()
