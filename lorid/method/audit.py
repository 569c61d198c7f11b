"""Label audit: questions on which every rule agrees on an answer that is not the label.

    suspect = find_suspect(judged)          # Suspect | None

Where all rules, each side alone and the majority say the same and the label says something else,
often the label is wrong. It is a list to read, not a verdict: a student can be sure and wrong.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

from lorid.method.attempts import JudgedAttempts
from lorid.method.replay import score
from lorid.method.scoring import pooled
from lorid.method.stopping import LIVE_RULES, Outcome, Policy, Tally, fewest_rounds_to_come

ALL_ROUNDS = 10_000


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """An answer that all rules agree on against the label, and how many attempts gave it."""

    problem_id: str
    answer: str
    num_votes: int
    num_attempts: int

    def to_row(self, *, question: str, label: str) -> dict[str, Any]:
        """A line of the evaluation's `label_audit.jsonl`."""
        return {**asdict(self), "question": question, "label": label}


def find_suspect(item: JudgedAttempts, *, bounds: Policy | None = None) -> Suspect | None:
    """The question as a suspect, when it is one; `bounds` gives what rules have beside their name.

    A rule that ends without agreement agrees on nothing. `bayes` is not asked where the log has
    fewer rounds than it takes to be sure of anything: one that `paper` drew often ends after one.
    """
    if item.right is None or not item.deep or item.deep[0] is None:
        return None
    bounds = bounds or Policy(max_rounds=ALL_ROUNDS)
    answer = item.texts[item.deep[0]]
    for rule in LIVE_RULES:
        policy = replace(bounds, rule=rule)
        if rule == "deep-only" or not _may_agree(item, policy):
            continue  # the deep reasoner alone says it in its own words; its class is `answer`
        one = score(item, policy=policy)
        if one.outcome is not Outcome.AGREED or one.answer != answer or one.correct is not False:
            return None
    if item.is_first_deep_right is not False:
        return None
    votes = list(pooled(item, max_rounds=bounds.max_rounds))
    return Suspect(
        problem_id=item.problem_id,
        answer=answer,
        num_votes=votes.count(item.deep[0]),
        num_attempts=len(votes),
    )


def _may_agree(item: JudgedAttempts, policy: Policy) -> bool:
    if policy.rule != "bayes":
        return True
    return len(item.deep) >= fewest_rounds_to_come(policy, Tally())
