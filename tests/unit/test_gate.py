"""The quality gate: good rules pass, and each rule of the gate catches what it is for."""

import json
import os
import random
from pathlib import Path

import pytest

from lorid.demo.generator import TRAIN_FAMILIES, draw
from lorid.jsonl import read_jsonl
from lorid.method.gate import GATE_RULES, GateLimits, find_faults
from lorid.method.knowledge import parse_knowledge
from lorid.method.mentions import names_in, numbers_in, words_in
from lorid.method.problems import Problem, problem_from_row

SHARED = Path(
    os.environ.get("LORID_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data")
)
GOOD = ("Multiply the rate by the time worked.", "Add the parts to find the whole.")
LIMITS = GateLimits()


def problem(question: str, *, answer: str = "77", rationale: str = "") -> Problem:
    return Problem(problem_id="p", question=question, rationale=rationale, answer=answer)


def names_of(rule: str, asked: Problem, limits: GateLimits = LIMITS) -> list[str]:
    """Names of the faults of knowledge that holds `rule` and a harmless one."""
    other = "Subtract what was taken away from what was there."
    return [fault.name for fault in find_faults((rule, other), problem=asked, limits=limits)]


CAUGHT = [
    ("number-from-question", "Add 25 to the rest.", "Tom has 25 apples."),
    ("number-from-question", "Add twenty-five to the rest.", "Tom has 25 apples."),
    ("number-from-question", "Subtract twelve from the rest.", "She has twelve eggs."),
    ("number-from-question", "Multiply by 1200 to find it.", "It costs $1,200 a day."),
    ("number-from-question", "Multiply by 1,200.50 dollars.", "It costs $1200.5 a day."),
    ("number-from-question", "Take 3/4 of the whole.", "He ate 0.75 of the pie."),
    ("number-from-question", r"Take $\frac{3}{4}$ of it all.", "He ate 3/4 of the pie."),
    ("number-from-question", "Multiply the price by 0.35 first.", "There is a 35% discount."),
    ("number-from-question", "Multiply the 3 boxes by their size.", "Tom buys 3 boxes of pens."),
    ("number-from-question", "Multiply the three boxes by it.", "Tom buys 3 boxes of pens."),
    ("number-from-question", "Multiply the hours by $5 each.", "She earns $5 an hour."),
    ("number-from-question", "Divide the sum by 60 first.", "There are 60 apples."),
    ("name-from-question", "Multiply what Natalia sold by two.", "Then Natalia sold clips."),
    ("name-from-question", "Weng's rate times the time is it.", "Weng earns $12 an hour."),
    ("name-from-question", "Add the apples of Tom and others.", "Is it Tom's apple?"),
    ("name-from-question", "Use the area of square ABCD here.", "Square ABCD has a center."),
    ("name-from-question", "Count the days until next Friday.", "She begins on Friday."),
    ("final-answer", "The result must be 77 in the end.", "Tom has 25 apples."),
    ("final-answer", "It comes to seventy-seven items.", "Tom has 25 apples."),
    ("copied-phrase", "Count how many clips she sold to all of her friends.",
     "She sold to all of her friends clips: how many clips she sold to all of her friends?"),
    ("short-rule", "Add them.", "Tom has apples."),
    ("long-rule", "word " * 100, "Tom has apples."),
    ("near-duplicate", "From what was there, subtract what they were taken away.", "Tom has."),
]  # fmt: skip


@pytest.mark.parametrize(("name", "rule", "question"), CAUGHT)
def test_each_rule_of_the_gate_catches_what_it_is_for(name, rule, question):
    assert name in names_of(rule, problem(question))


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        ("5", "The answer is 5 after all steps."),
        ("1/48", r"The chance is $\frac{1}{48}$ in the end."),
        ("0.5", "So the answer is 1/2 of it."),
        ("x^2+3x+2", "Expand it to $x^2 + 3x + 2$ at once."),
        ("even", "Check it: the answer is even here."),
        (r"\frac{3\sqrt{2}}{2}", r"Simplify to \dfrac{3\sqrt{2}}{2} at last."),
    ],
)
def test_the_final_answer_is_found_in_equal_forms(answer, rule):
    assert "final-answer" in names_of(rule, problem("What is it?", answer=answer))


PASSES = [
    ("To find a percentage, multiply by it and divide by 100.", "Tom has 100 apples, 20% bad."),
    ("Divide the number of minutes by 60 to get hours.", "He reads for 60 minutes."),
    ("The angles of a triangle sum to 180 degrees.", "The angles sum to 180 degrees."),
    ("There are twelve months in each year.", "For 12 months she pays rent."),
    ("Divide the amount by 2 to find half of it.", "Tom has 2 apples and 2 pears."),
    ("Follow the three steps of the general method.", "Tom buys 3 boxes."),
    ("Expand (a + b)^3 as a^3 + 3a^2b + 3ab^2 + b^3.", "What is $9^3 + 3(9^2)$?"),
    ("Use the Pythagorean theorem for the legs.", "Use the Pythagorean theorem."),
    ("May and June are months; will it mark the end?", "It will be fun. Mark what may be."),
    ("Find the value of the unknown in the equation.", "Find the value. Find x."),
    ("A dozen equals 12 items of a kind.", "How many eggs are a dozen?"),
    ("The difference between the two is the total amount.", "How many are in the total amount?"),
    ("An even number can be divided by two.", "Is it even?"),
]


@pytest.mark.parametrize(("rule", "question"), PASSES)
def test_general_rules_pass_even_if_they_share_words_with_the_question(rule, question):
    assert names_of(rule, problem(question, answer="12")) == []


def test_the_number_of_rules_has_bounds():
    asked = problem("Tom has apples.")
    many = [f"Rule number {word} is about {word}." for word in ("ash", "bay", "cedar", "doum")]
    limits = GateLimits(min_rules=2, max_rules=3)
    for rules, expected in ((many[:1], ["too-few-rules"]), (many, ["too-many-rules"])):
        assert [f.name for f in find_faults(rules, problem=asked, limits=limits)] == expected
    assert find_faults(many[:3], problem=asked, limits=limits) == ()


def test_steps_are_looked_for_only_when_asked():
    asked = problem("Tom has apples.", rationale="2 + 3 = 5 and 5 / 5 = 1")
    rule = "Add the parts to find the whole."
    assert names_of(rule, asked) == []
    assert names_of(rule, asked, GateLimits(check_steps=True)) == ["step-not-covered"]
    assert names_of("Add up, then divide by it.", asked, GateLimits(check_steps=True)) == []


def test_one_knowledge_counts_under_every_rule_that_it_breaks():
    rules = ("Natalia sold 48 clips.", "She sold 48/2 = 24 clips.", "48 + 24 = 72 clips.")
    asked = problem("Then Natalia sold 48 clips to friends in April.", answer="72")
    found = {fault.name for fault in find_faults(rules, problem=asked, limits=LIMITS)}
    assert found == {"number-from-question", "name-from-question", "final-answer"}
    assert found <= set(GATE_RULES)


def test_the_rules_of_the_demo_pass():
    rng = random.Random(5)
    for family in TRAIN_FAMILIES * 5:
        item = draw(rng, family)
        limits = GateLimits(check_steps=True)
        assert find_faults(item.knowledge, problem=item.problem, limits=limits) == (), item


@pytest.mark.skipif(not SHARED.is_dir(), reason="LoRID's samples are not here")
def test_the_published_rules_pass_and_the_solutions_do_not():
    rows = [
        row
        for name in ("gsm8k_train.jsonl", "math_train.jsonl")
        for _, row in read_jsonl(SHARED / "lorid_samples" / name)
    ]
    assert len(rows) == 200
    num_solutions_caught = 0
    for row in rows:
        asked = problem_from_row(row)
        assert find_faults(row["knowledge"], problem=asked, limits=LIMITS) == (), row
        solution = asked.rationale.split("\n")[:5]
        num_solutions_caught += bool(find_faults(solution, problem=asked, limits=LIMITS))
    assert num_solutions_caught >= 190


@pytest.mark.parametrize(
    "text",
    [
        "1 " * 500_000, "1," * 500_000, "1/" * 500_000, "1." * 500_000, "Tom's " * 170_000,
        "a-" * 500_000, "twenty-" * 140_000, "twenty and " * 90_000, "hundred " * 120_000,
        '"' * 1_000_000, " " * 1_000_000, ". " * 500_000, "\\frac{1}{" * 110_000, "$" * 1_000_000,
        "\u4e00" * 1_000_000, "\U0001f600" * 500_000, "A" * 1_000_000, "9" * 1_000_000,
    ],
    ids=lambda text: text[:10].encode("unicode_escape").decode(),
)  # fmt: skip
def test_a_megabyte_of_anything_is_judged(text):
    # The limit of pytest-timeout is the assertion: what is quadratic here takes hours.
    asked = problem(text, answer=text[:150])
    find_faults((text[:9_000], "Add the parts to find it."), problem=asked, limits=LIMITS)
    assert find_faults((text, text), problem=asked, limits=LIMITS)
    parse_knowledge('{"output": ["' * 10 + text, problem=asked)
    part = text[:10_000]
    assert len(list(numbers_in(part))) + len(names_in(part)) + len(words_in(part)) <= 2 * len(part)


def test_numbers_and_names_are_read_in_every_spelling():
    text = "Twenty-five of 1,234.5 and 3/4, .5 or \\dfrac{1}{3}; 15% of two hundred and five."
    values = {str(one.value) for one in numbers_in(text)}
    assert {"25", "2469/2", "3/4", "1/2", "1/3", "15", "3/20", "205"} <= values
    names = names_in(
        'Weng saw Jean-Luc. If Betty\'s "Dora" is in Paris, so is Weng? Apples cost 3.'
    )
    assert names == {"weng", "jean-luc", "betty", "dora", "paris", "apples"}
    assert names_in("Apples and apples. The Sum. $X$ and \\Delta AB, If") == {"ab"}


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        (r'{"output": ["Use \frac{a}{b} here.", "Use \(x\) \times y."]}',
         (r"Use \frac{a}{b} here.", r"Use \(x\) \times y.")),
        (r'{"output": ["Use \\frac{a}{b} here.", "Say \"so\" once more."]}',
         (r"Use \frac{a}{b} here.", 'Say "so" once more.')),
        (r'By \frac{1}{2} and {"note": 1}: {"output": ["Add both parts.", "Halve it all."]} ok {}',
         ("Add both parts.", "Halve it all.")),
        ('{"output": ["Add the two parts.", "ADD the two  parts", "Halve it all."]}',
         ("Add the two parts.", "Halve it all.")),
    ],
)  # fmt: skip
def test_latex_and_prose_survive_the_parsing(text, rules):
    parsed = parse_knowledge(text)
    assert parsed.rules == rules
    assert json.loads(json.dumps(parsed.rules)) == list(rules)
