"""Replay, measured: all rules at all bounds in one pass, beside a replay of its own for each.

    python benchmarks/replay.py [--problems 1319] [--rounds 20]

Writes `benchmarks/results/replay-DATE.json`. The attempts are made from the demo's generator: its
rationales and rules, with the numbers of a wrong attempt drawn anew. One core is used. Asserted on
the way: each rule's own replay gives the same scores, and on the first problems so does every
bound, and so does mutual feedback itself when it is driven through the same attempts (the rule that
reads the label is a rule of replay alone). Fails above the limit of 30 s, or when sharing gains
nothing.
"""

import argparse
import random
import re
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from result_file import write_result

from lorid.demo.generator import generate
from lorid.method.attempts import ProblemAttempts, judge
from lorid.method.drivers import run_sync
from lorid.method.equivalence import AnswerChecker
from lorid.method.feedback import Ask, Sampled, mutual_feedback
from lorid.method.problems import EnrichedProblem
from lorid.method.replay import ProblemScore, replay, scores_by_bound
from lorid.method.roles import Role
from lorid.method.stopping import LIVE_RULES, RULES, Policy

LIMIT_S = 30.0
NUM_CHECKED = 60
Result = TypeVar("Result")


def made_attempts(*, problems: int, rounds: int, seed: int = 1) -> list[ProblemAttempts]:
    """Attempts at problems of the demo, each side with its own chance of being right."""
    rng = random.Random(seed)
    drawn = generate(split="train", count=problems, seed=seed)
    return [_attempts_at(problem, rng, rounds=rounds) for problem in drawn]


def _attempts_at(enriched: EnrichedProblem, rng: random.Random, *, rounds: int) -> ProblemAttempts:
    problem = enriched.problem
    knowledge = tuple(Sampled(text="\n".join(enriched.knowledge)) for _ in range(rounds))
    sides: list[tuple[Sampled, ...]] = []
    for _ in ("intuitive", "deep"):
        chance = rng.betavariate(1.3, 0.8)
        sides.append(tuple(_attempt(enriched, rng, chance=chance) for _ in range(rounds)))
    return ProblemAttempts(
        problem_id=problem.problem_id,
        question=problem.question,
        gold=problem.answer,
        intuitive=sides[0],
        knowledge=knowledge,
        deep=sides[1],
    )


def _attempt(enriched: EnrichedProblem, rng: random.Random, *, chance: float) -> Sampled:
    rationale, answer = enriched.problem.rationale, enriched.problem.answer
    if rng.random() > chance:
        rationale = re.sub(r"\d+", lambda _: str(rng.randint(2, 40)), rationale)
        answer = str(max(0, int(answer) + rng.choice((-20, -10, -2, -1, 1, 2, 10, 20))))
    if rng.random() < 0.03:
        return Sampled(text=rationale, truncated=True)
    # The same number in the ways that models write it.
    written = rng.choice((answer, answer, f"${answer}", f"{answer}.00", f"{answer}.0"))
    return Sampled(text=f"{rationale}\n--> {written} END")


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """What the work gives, and its seconds of CPU."""
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


def shared(
    attempts: Sequence[ProblemAttempts], checker: AnswerChecker, *, rounds: int
) -> dict[str, list[list[ProblemScore]]]:
    """All rules and bounds: answers extracted and compared once."""
    judged = [judge(item, checker) for item in attempts]
    return {
        rule: [
            scores_by_bound(item, policy=Policy(rule=rule, max_rounds=rounds)) for item in judged
        ]
        for rule in RULES
    }


def one_by_one(
    attempts: Sequence[ProblemAttempts], checker: AnswerChecker, *, bounds: Sequence[int]
) -> dict[tuple[str, int], list[ProblemScore]]:
    """A replay of its own for each rule and bound."""
    return {
        (rule, bound): replay(attempts, policy=Policy(rule=rule, max_rounds=bound), checker=checker)
        for rule in RULES
        for bound in bounds
    }


def require_equal(
    table: dict[str, list[list[ProblemScore]]], alone: dict[tuple[str, int], list[ProblemScore]]
) -> None:
    """Both ways give the same scores."""
    for (rule, bound), scores in alone.items():
        expected = [at[min(bound, len(at)) - 1] for at in table[rule]]
        assert expected[: len(scores)] == scores, (rule, bound)


def require_live(
    attempts: Sequence[ProblemAttempts],
    table: dict[str, list[list[ProblemScore]]],
    checker: AnswerChecker,
    *,
    rounds: int,
) -> None:
    """Mutual feedback through the same attempts decides alike."""
    for number, item in enumerate(attempts):
        sides = {
            Role.INTUITIVE_REASONER: item.intuitive,
            Role.KNOWLEDGE_GENERATOR: item.knowledge,
            Role.DEEP_REASONER: item.deep,
        }

        def sample(ask: Ask, sides: dict[Role, tuple[Sampled, ...]] = sides) -> Sampled:
            return sides[ask.role][ask.round_index]

        for rule in LIVE_RULES:
            policy = Policy(rule=rule, max_rounds=rounds)
            generator = mutual_feedback(item.question, policy=policy, checker=checker)
            live, score = run_sync(generator, sample=sample), table[rule][number][-1]
            assert (live.outcome, live.answer, live.confidence, len(live.rounds)) == (
                score.outcome, score.answer, score.confidence, score.num_rounds,
            ), (rule, item.problem_id)  # fmt: skip


def main() -> None:
    """Measure, check, write."""
    parser = argparse.ArgumentParser(description="Measure replay.")
    parser.add_argument("--problems", type=int, default=1319)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    attempts = made_attempts(problems=args.problems, rounds=args.rounds)
    first, bounds = attempts[:NUM_CHECKED], range(1, args.rounds + 1)
    with AnswerChecker() as checker:
        table, all_s = timed(lambda: shared(attempts, checker, rounds=args.rounds))
        alone, rules_s = timed(lambda: one_by_one(attempts, checker, bounds=[args.rounds]))
        require_equal(table, alone)
        _, first_s = timed(lambda: shared(first, checker, rounds=args.rounds))
        alone, bounds_s = timed(lambda: one_by_one(first, checker, bounds=bounds))
        require_equal(table, alone)
        require_live(first, table, checker, rounds=args.rounds)
    paper = [scores[-1] for scores in table["paper"]]
    figures = {
        "problems": args.problems,
        "rounds": args.rounds,
        "rules": list(RULES),
        "texts": sum(len(i.intuitive) + len(i.knowledge) + len(i.deep) for i in attempts),
        "cpu_seconds": {
            "all rules at all bounds, one pass": round(all_s, 2),
            "each rule alone at the last bound": round(rules_s, 2),
            "limit": LIMIT_S,
        },
        "ratio_to_each_rule_alone_at_one_bound": round(rules_s / all_s, 2),
        "ratio_to_each_rule_and_bound_alone": round(bounds_s / first_s, 2),
        "problems_of_the_second_ratio": len(first),
        "share_right_under_paper": sum(one.correct is True for one in paper) / len(paper),
    }
    command = f"python benchmarks/replay.py --problems {args.problems} --rounds {args.rounds}"
    file = write_result("replay", figures, command=command, packages=("math-verify",))
    print(f"{file}: {figures['cpu_seconds']}")
    if all_s > LIMIT_S or rules_s <= all_s:
        raise SystemExit(f"{all_s:.1f} s in one pass, {rules_s:.1f} s rule by rule")


if __name__ == "__main__":
    main()
