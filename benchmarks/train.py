"""Training, side by side: lorid, PEFT with TRL's SFTTrainer, one role, three, and three fused.

    python benchmarks/train.py --trl-python PYTHON [--rounds 3]

PYTHON is an interpreter with trl 1.x beside this environment's packages. Every contender runs in a
process of its own, one thread, in turn, `--rounds` times, with the same untrained base (5.5M
parameters, Llama's shape), the same sequences (lengths drawn so that 4 of them padded cost about
1.35 times their tokens, as maths problems do) and settings. Fails when the loss curves differ:
a fast run that learns something else is not a result. Ratios are of processor seconds a supervised
token, medians of the rounds; wall seconds are beside them. Memory is the proportional set size
(shared pages counted once), at its highest.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from result_file import write_result

ROLES = ("intuitive_reasoner", "knowledge_generator", "deep_reasoner")
# Mean lengths of the roles' sequences on GSM8K are near these; spread as in a log-normal.
MEAN_TOKENS = {"intuitive_reasoner": 190, "knowledge_generator": 150, "deep_reasoner": 270}
SIGMA = 0.35
VOCAB_SIZE = 2048
CONTENDERS = Path(__file__).with_name("train_contenders.py")
TOLERANCE = 1e-4


def make_files(folder: Path, *, num_sequences: int) -> dict[str, Any]:
    """The base, a tokenizer for TRL, and each role's sequences in the order of training."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB_SIZE, hidden_size=256, intermediate_size=688, num_hidden_layers=6,
            num_attention_heads=4, max_position_embeddings=1024, tie_word_embeddings=True,
        )
    )  # fmt: skip
    base.save_pretrained(folder / "base")
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="<unk>")),
        pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
    )  # fmt: skip
    tokenizer.save_pretrained(folder / "base")
    waste = {}
    for number, role in enumerate(ROLES):
        rng = random.Random(number)
        rows = [_row(rng, MEAN_TOKENS[role]) for _ in range(num_sequences)]
        waste[role] = _padding_ratio([len(row["input_ids"]) for row in rows])
        (folder / f"{role}.json").write_text(json.dumps(rows))
    return {"num_parameters": base.num_parameters(), "padded_over_real_tokens": waste}


def _row(rng: random.Random, mean: int) -> dict[str, list[int]]:
    length = min(1000, max(24, round(mean * rng.lognormvariate(-(SIGMA**2) / 2, SIGMA))))
    # Each token follows from the last two, so that there is something to learn.
    ids = [rng.randrange(3, 300), rng.randrange(3, 300)]
    while len(ids) < length:
        ids.append(
            3 + (ids[-1] * 7 + ids[-2]) % 300 if rng.random() < 0.9 else rng.randrange(3, 300)
        )
    return {"input_ids": ids, "labels": [-100] * (length * 2 // 5) + ids[length * 2 // 5 :]}


def _padding_ratio(lengths: list[int], per_batch: int = 4) -> float:
    groups = [lengths[i : i + per_batch] for i in range(0, len(lengths), per_batch)]
    return round(sum(max(g) * len(g) for g in groups) / sum(lengths), 3)


class MemoryWatch(threading.Thread):
    """The highest sum of the processes' proportional set sizes, ten times a second."""

    def __init__(self, pids: list[int]) -> None:
        super().__init__(daemon=True)
        self.processes = [psutil.Process(pid) for pid in pids]
        self.peak, self.ended = 0, threading.Event()

    def run(self) -> None:
        """Until `ended` is set."""
        while not self.ended.wait(0.1):
            total = 0
            for process in self.processes:
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            self.peak = max(self.peak, total)


def run_all(commands: list[list[str]]) -> tuple[list[dict[str, Any]], int, float]:
    """Run processes at the same time; their results, their peak memory together, wall seconds."""
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": str(CONTENDERS.parents[1]), "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    started = time.monotonic()
    processes = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        for command in commands
    ]
    watch = MemoryWatch([process.pid for process in processes])
    watch.start()
    outputs = [process.communicate() for process in processes]
    watch.ended.set()
    results = []
    for (out, err), process in zip(outputs, processes, strict=True):
        lines = [line for line in out.splitlines() if line.startswith("RESULT ")]
        if process.returncode or not lines:
            raise SystemExit(f"a contender ended with {process.returncode}:\n{err[-3000:]}")
        results.append(json.loads(lines[0].removeprefix("RESULT ")))
    return results, watch.peak, time.monotonic() - started


def command_of(python: str, kind: str, settings: dict[str, Any]) -> list[str]:
    """How a contender is started."""
    return [python, str(CONTENDERS), kind, json.dumps(settings)]


def contenders(folder: Path, trl_python: str) -> dict[str, list[list[str]]]:
    """Name to the commands that run at the same time."""
    shared = {"folder": str(folder), "dropout": 0.0, "sequences_per_step": 16}
    # About as many tokens at once as TRL's four sequences have.
    shared["micro_batch_tokens"] = 1024
    trl = {**shared, "roles": [ROLES[2]], "max_length": 1024, "packing": False}

    def lorid(*roles: str, **more: Any) -> list[str]:
        return command_of(sys.executable, "lorid", {**shared, "roles": list(roles), **more})

    return {
        "lorid": [lorid(ROLES[2])],
        "trl padded, 4 x 4": [command_of(trl_python, "trl", {**trl, "batch": 4, "accumulate": 4})],
        "trl padded, 16 x 1": [
            command_of(trl_python, "trl", {**trl, "batch": 16, "accumulate": 1})
        ],
        "trl packed, 1024 x 4": [
            command_of(trl_python, "trl", {**trl, "packing": True, "batch": 1, "accumulate": 4})
        ],
        "trl packed, 512 x 8": [
            command_of(
                trl_python,
                "trl",
                {**trl, "packing": True, "max_length": 512, "batch": 1, "accumulate": 8},
            )
        ],
        "lorid packed": [lorid(ROLES[2], tokens_per_step=4096)],
        "solo intuitive_reasoner": [lorid(ROLES[0])],
        "solo knowledge_generator": [lorid(ROLES[1])],
        "fused": [lorid(*ROLES)],
        "three processes": [lorid(role) for role in ROLES],
    }


def measure(
    folder: Path, trl_python: str, *, rounds: int, only: list[str]
) -> dict[str, list[dict[str, Any]]]:
    """Every contender `rounds` times, in turn."""
    found: dict[str, list[dict[str, Any]]] = {}
    for number in range(rounds):
        for name, commands in contenders(folder, trl_python).items():
            if only and name not in only:
                continue
            results, peak, wall = run_all(commands)
            merged = {
                "losses": {role: curve for one in results for role, curve in one["losses"].items()},
                "peak_mib": round(peak / 1024**2, 1),
                "run_wall_s": wall,
                **{
                    key: sum(one[key] for one in results)
                    for key in ("cpu_s", "wall_s", "supervised_tokens", "process_cpu_s")
                },
            }
            found.setdefault(name, []).append(merged)
            rate = merged["supervised_tokens"] / merged["cpu_s"]
            print(
                f"round {number + 1}  {name:<26} {rate:8,.0f} supervised tokens a CPU second  "
                f"{merged['cpu_s']:.2f} s in {merged['supervised_tokens']:,}  "
                f"{merged['process_cpu_s']:.1f} s in all  {merged['peak_mib']:,.0f} MiB",
                flush=True,
            )
    return found


def summarize(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians, and the ratios that the goals are about."""
    rates = {
        name: statistics.median(one["supervised_tokens"] / one["cpu_s"] for one in runs)
        for name, runs in found.items()
    }

    def middle(name: str, key: str) -> float:
        return statistics.median(one[key] for one in found[name])

    solo = ("solo intuitive_reasoner", "solo knowledge_generator", "lorid")
    best = {
        kind: max(rate for name, rate in rates.items() if name.startswith(f"trl {kind}"))
        for kind in ("padded", "packed")
    }
    return {
        "supervised_tokens_per_cpu_s": {name: round(rate) for name, rate in rates.items()},
        "supervised_tokens_per_wall_s": {
            name: round(statistics.median(one["supervised_tokens"] / one["wall_s"] for one in runs))
            for name, runs in found.items()
            if name != "three processes"
        },
        "peak_mib": {name: middle(name, "peak_mib") for name in found},
        "ratios": {
            "lorid over trl padded": rates["lorid"] / best["padded"],
            "lorid over trl packed": rates["lorid"] / best["packed"],
            "lorid packed over trl packed": rates["lorid packed"] / best["packed"],
            "fused steps over three solo, time": middle("fused", "cpu_s")
            / sum(middle(name, "cpu_s") for name in solo),
            "fused run over three solo runs in turn, time": middle("fused", "process_cpu_s")
            / sum(middle(name, "process_cpu_s") for name in solo),
            "fused over three processes, memory": middle("fused", "peak_mib")
            / middle("three processes", "peak_mib"),
            "fused over one solo, memory": middle("fused", "peak_mib")
            / middle("lorid", "peak_mib"),
        },
    }


def check(found: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """The loss curves agree; returns by how much at most they differ.

    Raises:
        SystemExit: they do not.
    """
    lorid = found["lorid"][0]["losses"]

    def apart(one: dict[str, list[float]], other: dict[str, list[float]]) -> float:
        pairs = [
            (a, b)
            for role in one
            if role in other
            for a, b in zip(one[role], other[role], strict=True)
        ]
        return max(abs(a - b) for a, b in pairs)

    gaps = {
        name: apart(lorid, found[name][0]["losses"])
        for name in ("trl padded, 4 x 4", "trl padded, 16 x 1", "fused", "three processes")
    }
    for role, name in (
        (ROLES[0], "solo intuitive_reasoner"),
        (ROLES[1], "solo knowledge_generator"),
    ):
        gaps[f"fused, {role}"] = apart(
            found[name][0]["losses"], {role: found["fused"][0]["losses"][role]}
        )
    wrong = {name: gap for name, gap in gaps.items() if gap > TOLERANCE}
    if wrong:
        raise SystemExit(f"the loss curves differ by more than {TOLERANCE}: {wrong}")
    # Packing puts other sequences into a step: the same data must end at about the same loss.
    ends = {
        name: statistics.mean(next(iter(found[name][0]["losses"].values()))[-3:])
        for name in ("lorid", "lorid packed", "trl packed, 1024 x 4")
    }
    if max(ends.values()) - min(ends.values()) > 0.25:
        raise SystemExit(f"packed runs end elsewhere: {ends}")
    return gaps


def main() -> None:
    """Measure, check, write."""
    parser = argparse.ArgumentParser(description="Measure training against TRL.")
    parser.add_argument("--trl-python", required=True, help="an interpreter that imports trl")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--num-sequences", type=int, default=192)
    parser.add_argument("--only", action="append", default=[], help="contenders to try; no result")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        made = make_files(folder, num_sequences=args.num_sequences)
        print(made)
        found = measure(folder, args.trl_python, rounds=args.rounds, only=args.only)
    if args.only:
        return
    gaps = check(found)
    asked = subprocess.run(
        [args.trl_python, "-c", "import trl; print(trl.__version__)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    figures = {**made, "loss_gaps": gaps, **summarize(found), "raw": found}
    file = write_result(
        "train",
        figures,
        command="python benchmarks/train.py --trl-python PYTHON "
        f"--rounds {args.rounds} --num-sequences {args.num_sequences}",
        packages=("torch", "transformers", "peft"),
        versions={"trl": asked.stdout.split()[-1]},
    )
    print(file, json.dumps(figures["ratios"], indent=1))


if __name__ == "__main__":
    main()
