"""Training, side by side: lorid, PEFT with TRL's SFTTrainer, one role, three, three fused, and Ray.

    python benchmarks/train.py --trl-python PYTHON [--rounds 3]
    python benchmarks/train.py --trl-python PYTHON --work FOLDER --seconds 200   # until it is done

PYTHON is an interpreter with trl 1.x beside this environment's packages. Every contender runs in a
process of its own, one thread, in turn, `--rounds` times, with the same untrained base (4.5M
parameters, Llama's shape), the same sequences (lengths drawn so that 4 of them padded cost about
1.4 times their tokens, as maths problems do) and settings. Settings of TRL that are not its best,
and what only memory is wanted of, run once. Fails when loss curves
differ: a fast run that learns something else is not a result. Ratios are of processor seconds,
medians of the rounds; wall seconds are beside them. Memory is what the processes have for
themselves and, once, what they share, at its highest. With `--work` runs that are done are kept,
and `--seconds` starts none when so many have passed: the same command goes on. `--at-once 2` has
two runs of a round under way, on a machine that is busy anyway.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
from result_file import write_result
from train_figures import Runs, check, summarize
from train_files import ROLES, make_files

CONTENDERS = Path(__file__).with_name("train_contenders.py")
ON_RAY = Path(__file__).with_name("train_on_ray.py")
SUMMED = ("cpu_s", "wall_s", "supervised_tokens", "process_cpu_s")
NOT_DONE = 3
# Once is enough to see that they are not the best.
OTHER_SETTINGS = ("trl padded, 16 x 1", "trl packed, 1024 x 4", "lorid packed")


class MemoryWatch(threading.Thread):
    """The most memory of the processes together, looked at four times a second."""

    def __init__(self, pids: list[int]) -> None:
        super().__init__(daemon=True)
        self.processes = [psutil.Process(pid) for pid in pids]
        self.peak, self.ended = 0, threading.Event()

    def run(self) -> None:
        """Until `ended` is set."""
        while not self.ended.wait(0.25):
            own = shared = 0
            for process in self.processes:
                try:
                    found = process.memory_full_info()
                except psutil.Error:
                    continue
                own += found.uss
                # Libraries' pages: not a share of them, which depends on who else has loaded them.
                shared = max(shared, found.rss - found.uss)
            self.peak = max(self.peak, own + shared)


def run_all(commands: list[list[str]]) -> dict[str, Any]:
    """Run processes at the same time: their results as one, their peak memory together."""
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
    return {
        **_merged(results),
        "run_wall_s": round(time.monotonic() - started, 3),
        "peak_mib": round(watch.peak / 1024**2, 1),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _merged(results: list[dict[str, Any]]) -> dict[str, Any]:
    if "losses" not in results[0]:
        return results[0]
    losses = {role: curve for one in results for role, curve in one["losses"].items()}
    return {"losses": losses, **{key: sum(one[key] for one in results) for key in SUMMED}}


def contenders(
    folder: Path, trl_python: str
) -> tuple[dict[str, list[list[str]]], dict[str, list[list[str]]]]:
    """Name to the commands that run at the same time: in every round, and once."""
    # About as many tokens at once as TRL's four sequences have.
    shared = {
        "folder": str(folder), "dropout": 0.0, "sequences_per_step": 16, "micro_batch_tokens": 1024,
    }  # fmt: skip

    def command(kind: str, *roles: str, **more: Any) -> list[str]:
        python = trl_python if kind == "trl" else sys.executable
        return [
            python, str(CONTENDERS), kind, json.dumps({**shared, "roles": list(roles), **more})
        ]  # fmt: skip

    def padded(role: str, *, batch: int = 4) -> list[str]:
        return command(
            "trl", role, batch=batch, accumulate=16 // batch, max_length=1024, packing=False
        )

    def packed(length: int) -> list[str]:
        return command(
            "trl", ROLES[2], batch=1, accumulate=4096 // length, max_length=length, packing=True
        )

    def on_ray(kind: str) -> list[str]:
        return [sys.executable, str(ON_RAY), kind, json.dumps({"folder": str(folder)})]

    always = {
        "plain loop": [on_ray("plain")],
        "on ray": [on_ray("ray")],
        "lorid": [command("lorid", ROLES[2])],
        "trl padded, 4 x 4": [padded(ROLES[2])],
        "trl packed, 512 x 8": [packed(512)],
        "solo intuitive_reasoner": [command("lorid", ROLES[0])],
        "solo knowledge_generator": [command("lorid", ROLES[1])],
        "fused": [command("lorid", *ROLES)],
        "trl intuitive_reasoner": [padded(ROLES[0])],
        "trl knowledge_generator": [padded(ROLES[1])],
    }
    once = {
        "three processes": [command("lorid", role) for role in ROLES],
        "trl three processes": [padded(role) for role in ROLES],
        "profile": [command("profile", *ROLES)],
        "trl padded, 16 x 1": [padded(ROLES[2], batch=16)],
        "trl packed, 1024 x 4": [packed(1024)],
        "lorid packed": [command("lorid", ROLES[2], tokens_per_step=4096)],
    }
    return always, once


def measure(
    folder: Path,
    trl_python: str,
    *,
    rounds: int,
    only: list[str],
    seconds: float,
    at_once: int,
    is_enough: bool,
) -> Runs | None:
    """Every contender in turn, round by round; None when the time is over before that.

    With `is_enough` one run of each will do, and none of those that TRL does best without.
    """
    file, ends = folder / "runs.jsonl", time.monotonic() + seconds
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {(row["round"], row["name"]): row["run"] for row in rows}
    always, once = contenders(folder, trl_python)
    wanted = {(number, name): always[name] for number in range(1, rounds + 1) for name in always}
    wanted |= {(1, name): commands for name, commands in once.items()}
    if only:
        wanted = {key: commands for key, commands in wanted.items() if key[1] in only}

    def run(key: tuple[int, str]) -> None:
        if time.monotonic() > ends:
            return
        done[key] = run_all(wanted[key])
        with file.open("a") as out:
            out.write(json.dumps({"round": key[0], "name": key[1], "run": done[key]}) + "\n")
        print(f"round {key[0]}  {key[1]:<26} {_said(done[key])}", flush=True)

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(run, [key for key in wanted if key not in done]))
    found: Runs = {}
    for key in [key for key in wanted if key in done]:
        found.setdefault(key[1], []).append(done[key])
    missing = {name for _, name in wanted if name not in found}
    is_whole = all(key in done for key in wanted)
    return found if is_whole or (is_enough and missing <= set(OTHER_SETTINGS)) else None


def _said(run: dict[str, Any]) -> str:
    if "losses" in run:
        return (
            f"{run['supervised_tokens'] / run['cpu_s']:8,.0f} supervised tokens a CPU second  "
            f"{run['process_cpu_s']:.1f} s in all  {run['peak_mib']:,.0f} MiB"
        )
    return json.dumps({k: v for k, v in run.items() if k not in ("step_ends_s", "adapter_sha256")})


def main() -> None:
    """Measure, check, write."""
    parser = argparse.ArgumentParser(description="Measure training against TRL.")
    parser.add_argument("--trl-python", required=True, help="an interpreter that imports trl")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--num-sequences", type=int, default=192)
    parser.add_argument("--only", action="append", default=[], help="contenders to try; no result")
    parser.add_argument("--work", type=Path, help="keep files and runs here, and go on from them")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no run after")
    parser.add_argument("--at-once", type=int, default=1, help="runs at the same time")
    parser.add_argument(
        "--as-it-is", action="store_true", help="write what is done when --seconds are over"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.work or Path(temporary)
        made = _made(folder, num_sequences=args.num_sequences)
        found = measure(
            folder,
            args.trl_python,
            rounds=args.rounds,
            only=args.only,
            seconds=args.seconds,
            at_once=args.at_once,
            is_enough=args.as_it_is,
        )
    if found is None:
        print("not done: the same command with the same --work goes on")
        raise SystemExit(NOT_DONE)
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
        f"--rounds {args.rounds} --num-sequences {args.num_sequences} --at-once {args.at_once}"
        + (" --work FOLDER --seconds S, then --as-it-is" if args.as_it_is else ""),
        packages=("torch", "transformers", "peft", "ray"),
        versions={"trl": asked.stdout.split()[-1]},
    )
    print(file, json.dumps(figures["ratios"], indent=1))


def _made(folder: Path, *, num_sequences: int) -> dict[str, Any]:
    file = folder / "made.json"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(make_files(folder, num_sequences=num_sequences)))
    made = json.loads(file.read_text())
    print(made, flush=True)
    return made


if __name__ == "__main__":
    main()
