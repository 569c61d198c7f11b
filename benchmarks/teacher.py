"""The API teacher against what is possible, and beside its peers, on one local server.

    python benchmarks/teacher.py [--rows 640] [--runs 1] [--load in-flight] [--curator-python PATH]

Three loads. `in-flight`: 64 requests may be under way and each takes about 2 s (lognormal), so
Little's limit is 64 over the mean latency that the server saw. `wide`: the same with 256, where a
client's own time for a request begins to matter. `rate`: the server refuses more than 1,200
requests a minute. The server's own log is the clock for everybody, from the first request to the
last answer, so nobody's start-up counts; `seconds_in_all` is the whole command. `steady` is the
rate between the first and the last tenth of the answers: without filling and draining, which count
for little in a run of hours.

lorid runs as its users run it (jobs/generate_knowledge.py, Ray, the ledger on). Peers that cannot
reach the limit get fewer rows. Texts of all are compared with each other and with what is right.
A peer that ends without all of its texts stands under `gave_up` with its last words. Curator wants
an environment of its own; without `--curator-python` it is left out, and said so.
Writes `benchmarks/results/teacher-LOAD-DATE.json`.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from result_file import write_result

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "teach"))
from misbehaving_server import Server, misbehaving_server
from model_answers import question_id, rules_for
from teach_runs import Job, knowledge_records, ledger_of, outcomes, prepare, write_config

from lorid.artifacts.store import open_store
from lorid.errors import one_line
from lorid.method.knowledge import parse_knowledge, teacher_prompt
from lorid.method.problems import Problem, read_problems
from lorid.teacher.ledger import Ledger, Stored

LATENCY = {"kind": "lognormal", "median_s": 2.0, "sigma": 0.25}
PER_MINUTE = 1200
PEERS = Path(__file__).with_name("teacher_peers.py")
Load = dict[str, Any]
LOADS: dict[str, Load] = {
    "in-flight": {"latency": LATENCY, "in_flight": 64, "per_minute": None},
    "wide": {"latency": LATENCY, "in_flight": 256, "per_minute": None},
    "rate": {"latency": {**LATENCY, "median_s": 1.0}, "in_flight": 64, "per_minute": PER_MINUTE},
}


def measure(server: Server, work: Callable[[], dict[str, list[str]]]) -> dict[str, Any]:
    """What the server saw while `work` ran, and whether every text was right."""
    start, began = server.counts()["num_events"], time.monotonic()
    rules = work()
    seconds_in_all = time.monotonic() - began
    questions = {question_id(question) for question in rules}
    log = [entry for entry in server.log(since=start) if entry["question"] in questions]
    received = {e["number"]: e["at"] for e in log if e["event"] == "received"}
    sent = {e["number"]: e["at"] for e in log if e["event"] == "sent" and e["fault"] is None}
    seconds = max(sent.values()) - min(received.values())
    wrong = [q for q, found in rules.items() if found != rules_for(q, model="teacher")]
    if wrong:
        raise SystemExit(f"{len(wrong)} of {len(rules)} texts are not what the server wrote")
    ends = sorted(sent.values())
    low, high = len(ends) // 10, len(ends) - len(ends) // 10 - 1
    return {
        "rows": len(rules),
        "rows_per_s": round(len(rules) / seconds, 2),
        "steady_rows_per_s": round((high - low) / (ends[high] - ends[low]), 2),
        "seconds": round(seconds, 2),
        "seconds_in_all": round(seconds_in_all, 2),
        "mean_latency_s": round(
            statistics.mean(at - received[number] for number, at in sent.items()), 4
        ),
        "refused_by_the_limit": sum(e["fault"] == "limit" for e in log) // 2,
    }


class PeerGaveUp(Exception):
    """A peer ended without its texts; its last words."""


def run_lorid(server: Server, folder: Path, problems: Sequence[Problem], load: Load) -> Any:
    """The stage as users run it, with a store of its own."""
    rows = [{"question": p.question, "answer": f"{p.rationale}\n#### {p.answer}"} for p in problems]
    test = [{"question": "A farm has one pear. How many pears has it?", "answer": "#### 1"}]
    for name, some in (("train", rows), ("test", test)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    api = {"max_in_flight": load["in_flight"], "requests_per_minute": load["per_minute"]}
    write_config(folder, server, api=api)
    prepare(folder)

    def work() -> dict[str, list[str]]:
        job = Job(folder)
        if job.process.wait():
            raise SystemExit(job.said())
        job.end()
        (record,) = knowledge_records(str(folder / "store"))
        return outcomes(str(folder / "store"), record, folder / "out")[0]

    return measure(server, work)


def run_peer(
    server: Server, folder: Path, problems: Sequence[Problem], load: Load, *, peer: str, python: str
) -> Any:
    """A peer in a process of its own."""
    by_id = {problem.problem_id: problem for problem in problems}
    prompts, out = folder / "prompts.jsonl", folder / "texts.jsonl"
    lines = [{"id": p.problem_id, "prompt": teacher_prompt(p)} for p in problems]
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [python, str(PEERS), peer, "--url", server.url, "--prompts", str(prompts)]
    command += ["--out", str(out), "--in-flight", str(load["in_flight"])]
    if load["per_minute"]:
        command += ["--requests-per-minute", str(load["per_minute"])]

    def work() -> dict[str, list[str]]:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PeerGaveUp(one_line(done.stderr[-300:], max_chars=300))
        texts = [json.loads(line) for line in out.read_text().splitlines()]
        assert {text["id"] for text in texts} == set(by_id)
        return {
            by_id[text["id"]].question: list(parse_knowledge(text["text"]).rules) for text in texts
        }

    return measure(server, work)


def compare(
    load: Load, problems: Sequence[Problem], *, runs: int, curator: str | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Everybody in turn, `runs` times; and who gave up under this load, with what words."""
    python = sys.executable
    # One request at a time, and eight at a time, would take hours for what the others do.
    contenders: dict[str, tuple[int, str | None]] = {
        "lorid": (len(problems), None),
        "plain async client": (len(problems), python),
        "curator": (len(problems), curator),
        "ray.data.llm, 8 actors": (min(len(problems) // 10, 128), python),
        "sequential loop": (min(len(problems) // 100, 12), python),
    }
    names = {
        "plain async client": "async", "curator": "curator", "sequential loop": "sequential",
        "ray.data.llm, 8 actors": "ray",
    }  # fmt: skip
    found: dict[str, list[dict[str, Any]]] = {}
    gave_up: dict[str, str] = {}
    with misbehaving_server(
        latency=load["latency"],
        requests_per_minute=load["per_minute"] or 0,
    ) as server:
        for _ in range(runs):
            for name, (num_rows, interpreter) in contenders.items():
                if name in gave_up or (name == "curator" and curator is None):
                    continue
                some = problems[:num_rows]
                with tempfile.TemporaryDirectory(prefix="lorid-bench-") as at:
                    if interpreter is None:
                        result = run_lorid(server, Path(at), some, load)
                        result["ledger_seconds"] = ledger_seconds(
                            Path(at), at_once=load["in_flight"]
                        )
                    else:
                        try:
                            result = run_peer(
                                server, Path(at), some, load, peer=names[name], python=interpreter
                            )
                        except PeerGaveUp as error:
                            gave_up[name] = str(error)
                            print(name, "gave up:", error, flush=True)
                            continue
                found.setdefault(name, []).append(result)
                print(name, result, flush=True)
    return {name: summed(results, load) for name, results in found.items()}, gave_up


def summed(results: list[dict[str, Any]], load: Load) -> dict[str, Any]:
    """The median run beside its limit, and all runs."""
    results = sorted(results, key=lambda result: result["rows_per_s"])
    median = results[len(results) // 2]
    little = load["in_flight"] / median["mean_latency_s"]
    limit = min(little, load["per_minute"] / 60) if load["per_minute"] else little
    summary = {
        "median_rows_per_s": median["rows_per_s"],
        "limit_rows_per_s": round(limit, 2),
        "share_of_the_limit": round(median["rows_per_s"] / limit, 3),
        "steady_share_of_the_limit": round(median["steady_rows_per_s"] / limit, 3),
        "runs": results,
    }
    if "ledger_seconds" in median:
        summary["ledger_share_of_time"] = {
            kind: round(seconds / median["seconds"], 4)
            for kind, seconds in median["ledger_seconds"].items()
        }
    return summary


def ledger_seconds(folder: Path, *, at_once: int) -> dict[str, float]:
    """What the ledger alone takes for this run's responses, as many waiting at once as in the run.

    The median of five. `cpu` is what it takes from the stage; `wall` has the disk's waits in it,
    which in the stage pass while requests are under way, and here nothing hides.
    """
    responses = ledger_of(str(folder / "store"))

    async def add_all(name: str) -> tuple[float, float]:
        ledger = Ledger.opened(open_store(str(folder / "ledger-alone")), name=name)
        queue = list(responses)

        async def add_some() -> None:
            while queue:
                response: Stored = queue.pop()
                await ledger.add([response])

        wall, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(add_some() for _ in range(at_once)))
        return time.perf_counter() - wall, time.process_time() - cpu

    found = [asyncio.run(add_all(f"n{number}")) for number in range(5)]
    walls, cpus = zip(*found, strict=True)
    return {
        "wall": round(statistics.median(walls), 3),
        "cpu": round(statistics.median(cpus), 3),
    }


def package_version(python: str, package: str) -> str:
    """The version in that environment."""
    script = f"from importlib.metadata import version; print(version({package!r}))"
    done = subprocess.run([python, "-c", script], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def read(file: Path | None, *, num: int) -> list[Problem]:
    """Problems of a GSM8K file, or made up."""
    if file is not None:
        return read_problems(file)[0][:num]
    return [
        Problem(
            problem_id=f"p{number:06d}",
            question=f"A farm sells {number + 20} crates of pears and keeps 7. How many are there?",
            rationale=f"There were {number + 20}+7 crates.",
            answer=str(number + 27),
        )
        for number in range(num)
    ]


def main() -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(description="Measure the API teacher beside its peers.")
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--load", choices=LOADS, help="one of them; all without it")
    parser.add_argument("--problems", type=Path, help="a GSM8K file; made-up ones without it")
    parser.add_argument("--curator-python", help="interpreter of an environment with curator")
    args = parser.parse_args()
    curator = args.curator_python
    if curator is None:
        print("curator is left out: no --curator-python")
    problems = read(args.problems, num=args.rows)
    versions = {"curator": package_version(curator, "bespokelabs-curator")} if curator else {}
    for name in [args.load] if args.load else LOADS:
        contenders, gave_up = compare(LOADS[name], problems, runs=args.runs, curator=curator)
        write_result(
            f"teacher-{name}",
            {
                "load": LOADS[name],
                "contenders": contenders,
                "gave_up": gave_up,
            },
            command=f"python benchmarks/teacher.py --load {name} --rows {len(problems)} "
            f"--runs {args.runs}",
            packages=("openai", "ray"),
            versions=versions,
        )
        for contender, result in contenders.items():
            print(f"{name}: {contender}: {result['median_rows_per_s']} rows/s, "
                  f"{result['share_of_the_limit']} of the limit, "
                  f"steady {result['steady_share_of_the_limit']}")  # fmt: skip


if __name__ == "__main__":
    main()
