"""The knowledge stage on a whole data set, against a server that misbehaves.

    python benchmarks/teach_all.py [--problems gsm8k/train.jsonl]

The stage as its users run it, ledger on. One request in four meets a fault: errors with and without
Retry-After, resets, cut and damaged bodies, a slow drip, refusals, text that cannot be read; three
questions in two hundred get nothing usable ever and must be set aside. Checked, not only counted:
every problem has the knowledge of its own question or a reason, and nothing that the ledger holds
was asked for again, by this run or by a second one, which gives what was set aside one ask more.
Writes `benchmarks/results/teach-all-DATE.json`.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from result_file import write_result

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "teach"))
from misbehaving_server import Server, misbehaving_server
from teach_runs import (
    FAULTS,
    STUBBORN,
    Job,
    assert_nothing_durable_was_asked_again,
    assert_own_knowledge,
    knowledge_records,
    ledger_of,
    outcomes,
    prepare,
    write_config,
    write_problems,
)

MAX_IN_FLIGHT = 64
LATENCY = {"kind": "lognormal", "median_s": 0.4, "sigma": 0.5}
MAX_ASKS = 3
NUM_MADE_UP = 7473


def run(folder: Path, server: Server, *, max_asks: int) -> dict[str, Any]:
    """One run of the stage, and what came of it."""
    start, began = server.counts()["num_events"], time.monotonic()
    job = Job(folder, overrides=(f"teacher.max_asks={max_asks}",))
    if job.process.wait():
        raise SystemExit(job.said())
    seconds_in_all = time.monotonic() - began
    job.end()
    log = server.log(since=start)
    received = [entry for entry in log if entry["event"] == "received"]
    store = str(folder / "store")
    (record,) = [
        record for record in knowledge_records(store)
        if record.inputs["teacher.max_asks"] == max_asks
    ]  # fmt: skip
    kept, rejects = outcomes(store, record, folder / f"out-{max_asks}")
    assert_own_knowledge(kept, model="teacher")
    assert all(rejects.values())
    seconds = log[-1]["at"] - log[0]["at"]
    return {
        "problems": len(kept) + len(rejects),
        "kept": len(kept),
        "set_aside": dict(Counter(reason.split(":")[0] for reason in rejects.values())),
        "requests": len(received),
        "faults": dict(Counter(e["fault"] for e in received if e["fault"]).most_common()),
        "seconds_first_request_to_last_answer": round(seconds, 2),
        "seconds_in_all": round(seconds_in_all, 2),
        "requests_per_s": round(len(received) / seconds, 1),
        "details": record.details,
    }


def main() -> None:
    """Run twice, check, write."""
    parser = argparse.ArgumentParser(description="The knowledge stage on all problems of a file.")
    parser.add_argument("--problems", type=Path, help="a GSM8K file; as many made-up ones without")
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="lorid-bench-") as at,
        misbehaving_server(
            latency=LATENCY, faults=FAULTS, stubborn=STUBBORN, max_faults_per_question=2,
            numbered_models=True, seed=1,
        ) as server,
    ):  # fmt: skip
        folder = Path(at)
        write_problems(folder, num=NUM_MADE_UP)
        train = args.problems.resolve() if args.problems else None
        write_config(folder, server, train=train, api={"max_in_flight": MAX_IN_FLIGHT})
        prepare(folder)
        first = run(folder, server, max_asks=MAX_ASKS)
        again = run(folder, server, max_asks=MAX_ASKS + 1)
        responses = ledger_of(str(folder / "store"))
        assert_nothing_durable_was_asked_again(server.log(), responses)
        assert again["requests"] == sum(first["set_aside"].values())
    problems = ["--problems", args.problems.name] if args.problems else []
    write_result(
        "teach-all",
        {
            "in_flight": MAX_IN_FLIGHT, "latency": LATENCY, "share_of_faults": FAULTS,
            "share_of_questions_never_answered": STUBBORN,
            "responses_in_the_ledger": len(responses), "first_run": first, "second_run": again,
        },
        command=" ".join(["python benchmarks/teach_all.py", *problems]),
        packages=("openai", "ray"),
    )  # fmt: skip
    print(json.dumps({"first": first, "second": again}, indent=1))


if __name__ == "__main__":
    main()
