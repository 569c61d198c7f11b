"""What the runs of `benchmarks/train.py` say: whether they learnt the same, medians, ratios.

    gaps = check(found)         # SystemExit where a loss curve or an adapter differs
    figures = summarize(found)

Pure: `found` is what was measured, a list of runs for each contender's name.
"""

import statistics
from collections.abc import Sequence
from typing import Any

from train_files import ROLES

Runs = dict[str, list[dict[str, Any]]]
TOLERANCE = 1e-4
# Packing puts other sequences into a step: the same data must end at about the same loss.
PACKED_TOLERANCE = 0.25
SOLO = ("solo intuitive_reasoner", "solo knowledge_generator", "lorid")
TRL = ("trl intuitive_reasoner", "trl knowledge_generator", "trl padded, 4 x 4")
PACKED = ("lorid", "lorid packed", "trl packed, 512 x 8", "trl packed, 1024 x 4")
ON_RAY = ("plain loop", "on ray")


def check(found: Runs) -> dict[str, float]:
    """Every run of every round learnt the same; returns by how much their curves differ at most.

    Raises:
        SystemExit: they do not.
    """
    expected = {
        role: found[name][0]["losses"][role] for role, name in zip(ROLES, SOLO, strict=True)
    }
    gaps = {
        name: max(
            _apart(expected[role], curve) for run in runs for role, curve in run["losses"].items()
        )
        for name, runs in found.items()
        if name not in (*PACKED[1:], *ON_RAY, "profile")
    }
    wrong = {name: gap for name, gap in gaps.items() if gap > TOLERANCE}
    if wrong:
        raise SystemExit(f"the loss curves differ by more than {TOLERANCE}: {wrong}")
    ends = [
        statistics.mean(run["losses"][ROLES[2]][-3:])
        for name in PACKED
        for run in found.get(name, [])
    ]
    if max(ends) - min(ends) > PACKED_TOLERANCE:
        raise SystemExit(f"packed runs end elsewhere: {ends}")
    adapters = {run["adapter_sha256"] for name in ON_RAY for run in found[name]}
    steps = {run["num_steps"] for name in ON_RAY for run in found[name]}
    if len(adapters) != 1 or len(steps) != 1:
        raise SystemExit(f"the runs on Ray differ from the plain loop's: {adapters}, {steps}")
    return gaps


def _apart(one: Sequence[float], other: Sequence[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def summarize(found: Runs) -> dict[str, Any]:
    """Medians, and the ratios that the goals are about."""

    def middle(name: str, key: str) -> float:
        return statistics.median(run[key] for run in found[name])

    def summed(names: Sequence[str], key: str) -> float:
        return sum(middle(name, key) for name in names)

    def rate(name: str, per: str) -> float:
        return statistics.median(run["supervised_tokens"] / run[per] for run in found[name])

    training = [name for name in found if name not in (*ON_RAY, "profile")]
    rates = {name: rate(name, "cpu_s") for name in training}
    best = {
        kind: max(rate for name, rate in rates.items() if name.startswith(f"trl {kind}"))
        for kind in ("padded", "packed")
    }
    loads = [run["load_average"] for runs in found.values() for run in runs]
    return {
        "num_runs": {name: len(runs) for name, runs in found.items()},
        "load_average": {"median": statistics.median(loads), "highest": max(loads)},
        "supervised_tokens_per_cpu_s": {name: round(rate) for name, rate in rates.items()},
        "supervised_tokens_per_wall_s": {
            name: round(rate(name, "wall_s")) for name in training if "processes" not in name
        },
        "peak_mib": {name: middle(name, "peak_mib") for name in training},
        "whole_run_cpu_s": {name: middle(name, "process_cpu_s") for name in training},
        "whole_run_wall_s": {name: middle(name, "run_wall_s") for name in training},
        "ratios": {
            "lorid over trl padded": rates["lorid"] / best["padded"],
            "lorid over trl packed": rates["lorid"] / best["packed"],
            **(
                {"lorid packed over trl packed": rates["lorid packed"] / best["packed"]}
                if "lorid packed" in rates
                else {}
            ),
            "fused steps over three solo, time": middle("fused", "cpu_s") / summed(SOLO, "cpu_s"),
            "fused run over three solo runs in turn, time": middle("fused", "process_cpu_s")
            / summed(SOLO, "process_cpu_s"),
            "fused run over three trl runs in turn, time": middle("fused", "process_cpu_s")
            / summed(TRL, "process_cpu_s"),
            "fused steps over three trl, time": middle("fused", "cpu_s") / summed(TRL, "cpu_s"),
            "fused over three processes, memory": middle("fused", "peak_mib")
            / middle("three processes", "peak_mib"),
            "fused over three trl processes, memory": middle("fused", "peak_mib")
            / middle("trl three processes", "peak_mib"),
            "fused over one solo, memory": middle("fused", "peak_mib")
            / middle("lorid", "peak_mib"),
            "plain loop over on ray, processor time of a step": middle(
                "plain loop", "worker_cpu_s_per_step"
            )
            / middle("on ray", "worker_cpu_s_per_step"),
        },
        "fused_steps_over_three_solo_by_round": [
            round(fused["cpu_s"] / sum(found[name][at]["cpu_s"] for name in SOLO), 3)
            for at, fused in enumerate(found["fused"])
        ],
        "on_ray": _on_ray(found),
    }


def _on_ray(found: Runs) -> dict[str, Any]:
    """Each round's ratio, and the start-up of both: seconds since the process began."""
    pairs = zip(found["on ray"], found["plain loop"], strict=False)

    def middle(name: str, key: str) -> float:
        return statistics.median(run[key] for run in found[name])

    return {
        "steps_per_s_ratio_by_round": [
            round(ray["steps_per_s"] / plain["steps_per_s"], 4) for ray, plain in pairs
        ],
        "share_between_steps": {
            name: round(middle(name, "share_between_steps"), 5) for name in ON_RAY
        },
        "median_step_s": {name: round(middle(name, "median_step_s"), 4) for name in ON_RAY},
        "worker_cpu_s_per_step": {
            name: round(middle(name, "worker_cpu_s_per_step"), 4) for name in ON_RAY
        },
        "start_up_s": {
            name: {
                key: round(statistics.median(run["start_up_s"][key] for run in found[name]), 2)
                for key in found[name][0]["start_up_s"]
            }
            for name in ON_RAY
        },
    }
