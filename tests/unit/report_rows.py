"""Rows of an attempts file for the report's tests: answers by number, and many at random."""

import random

from lorid.report.data import ReportData


def texts(answers, *, wording="It is so."):
    return [f"{wording}\n--> {answer} END" if answer is not None else wording for answer in answers]


def row(
    name, intuitive, deep, *, gold="7", knowledge="To find it, add.\nTo check it, count.", **more
):
    return {
        "problem_id": name,
        "question": "How many are there?",
        "gold": gold,
        "intuitive": texts(intuitive),
        "knowledge": [knowledge] * len(deep),
        "deep": texts(deep),
        **more,
    }


def random_rows(number, *, num_rounds, seed=7):
    """Answers of both sides at random; 7 is right, None is no answer."""
    chance = random.Random(seed)
    pools = [(7, 7, 8, 9, None), (8, 8, 7, 9), (7, 7, 7, 8)]
    rows = []
    for index in range(number):
        pool = chance.choice(pools)
        sides = [[chance.choice(pool) for _ in range(num_rounds)] for _ in range(2)]
        rows.append(row(f"q{index}", *sides))
    return rows


def report_data(rows, *, rule="paper", max_rounds=20, **more):
    return ReportData(run_name="tiny", rule=rule, max_rounds=max_rounds, attempts=rows, **more)


def long_rows(number, *, num_rounds, seed=1):
    """As long as GSM8K's: attempts on one question share most of their wording, not all of it."""
    chance = random.Random(seed)
    syllables = [a + b for a in "bdfgklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er")]
    words = ["".join(chance.choices(syllables, k=chance.choice((1, 2, 3)))) for _ in range(3000)]

    def sentence(length):
        return " ".join(chance.choices(words, k=length)).capitalize()

    def attempt(steps):
        lines = [chance.choice(step) for step in steps]
        numbers = [chance.randint(2, 999) for _ in lines]
        worked = [f"{line} {n} * 3 = {3 * n}." for line, n in zip(lines, numbers, strict=True)]
        return "\n".join([*worked, f"--> {chance.choice((72, 72, 18, numbers[0]))} END"])

    rows = []
    for index in range(number):
        steps = [[sentence(9) for _ in range(6)] for _ in range(4)]
        rules = [sentence(12) + "." for _ in range(12)]
        rows.append(
            {
                "problem_id": f"q{index}",
                "question": sentence(45) + "?",
                "gold": "72",
                "intuitive": [attempt(steps) for _ in range(num_rounds)],
                "knowledge": ["\n".join(chance.sample(rules, 3)) for _ in range(num_rounds)],
                "deep": [attempt(steps) for _ in range(num_rounds)],
            }
        )
    return rows
