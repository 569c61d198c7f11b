"""The text that the demo's base model is pre-trained on, and the teacher's examples.

Four kinds of document, drawn for ever from one seed: arithmetic, copied words, one-step problems
in the prompts' own format (so that every token of a prompt or a target occurs), and whole problems
of the training split as plain text, half of them with their rules. No document shows a whole
problem in a role's prompt, none a held-out family, and none a question of the test split.
"""

import json
import math
import random
from collections.abc import Iterator

from lorid.demo.generator import (
    CONTAINERS,
    FRACTION_WORDS,
    MAX_VALUE,
    NAMES,
    NOUNS,
    ONE_STEP_FAMILIES,
    PERCENTAGES,
    TIMES_WORDS,
    TRAIN_FAMILIES,
    draw,
    draw_composed,
    split_of,
)
from lorid.method.knowledge import teacher_prompt
from lorid.method.problems import EnrichedProblem
from lorid.method.roles import Role, join_knowledge, role_target, solution_target, user_turn
from lorid.method.templates import TOKENIZER_FAMILY, TokenizerLike, encode_target, encode_turn

KINDS = ("arithmetic", "copied", "one_step", "whole")
KIND_WEIGHTS = (0.25, 0.2, 0.15, 0.4)


def arithmetic_line(rng: random.Random) -> str:
    """A few sums of the size that the problems need, in the rationale's notation.

    A third of them say first what is asked for in the words of the questions ("twice", "a third
    of", "20% of"), which is how the model learns what those words mean.
    """
    return "\n".join(_sum(rng) for _ in range(rng.randint(3, 6)))


def _sum(rng: random.Random) -> str:
    kind = rng.choices(("add", "subtract", "multiply", "divide", "word"), (3, 5, 4, 3, 5))[0]
    if kind == "add":
        a, b = rng.randint(2, 140), rng.randint(2, 90)
        return f"{a} + {b} = {a + b}"
    if kind == "subtract":
        a = rng.randint(10, MAX_VALUE)
        b = rng.randint(2, a - 1)
        return f"{a} - {b} = {a - b}"
    b = rng.randint(2, 12)
    q = rng.randint(2, MAX_VALUE // b)
    if kind == "multiply":
        a, b = rng.choice(((q, b), (b, q)))
        return f"{a} * {b} = {a * b}"
    if kind == "divide":
        return f"{q * b} / {b} = {q}"
    return _worded_sum(rng)


def _worded_sum(rng: random.Random) -> str:
    kind = rng.choice(("times", "fraction", "percent"))
    if kind == "times":
        k, word = rng.choice(list(TIMES_WORDS.items()))
        v = rng.randint(5, MAX_VALUE // k)
        return f"{word} {v} is {v} * {k} = {v * k}"
    if kind == "fraction":
        d, word = rng.choice(list(FRACTION_WORDS.items()))
        x = rng.randint(2, MAX_VALUE // d)
        return f"{word} of {x * d} is {x * d} / {d} = {x}"
    p = rng.choice(PERCENTAGES)
    unit = 100 // math.gcd(p, 100)
    v = unit * rng.randint(1, MAX_VALUE // unit)
    return f"{p}% of {v} is {v} * {p} / 100 = {v * p // 100}"


def copied_lines(rng: random.Random) -> str:
    """A list of names and things, said two or three times.

    Without it a small model reads numbers off a question but never the words: it stays for ever at
    guessing each of them equally often.
    """
    words = rng.choices((*NAMES, *NOUNS, *CONTAINERS), k=rng.randint(4, 14))
    return "\n".join([" ".join(words)] * rng.randint(2, 3))


def draw_train(rng: random.Random, families: tuple[tuple[str, ...], ...]) -> EnrichedProblem:
    """One problem whose question belongs to the training split."""
    while True:
        problem = draw(rng, rng.choice(families))
        if split_of(problem.problem.question) == "train":
            return problem


def draw_whole(rng: random.Random) -> EnrichedProblem:
    """A whole problem of the training split: of a known family, or of a random chain."""
    if rng.random() < 0.4:
        return draw_train(rng, TRAIN_FAMILIES)
    while True:
        problem = draw_composed(rng)
        if split_of(problem.problem.question) == "train":
            return problem


def plain_document(rng: random.Random, problem: EnrichedProblem) -> str:
    """A whole problem as plain text, with its rules or without."""
    rules = f"\nRules: {join_knowledge(problem.knowledge)}" if rng.random() < 0.5 else ""
    question, answer = problem.problem.question, solution_target(problem.problem)
    return f"Question: {question}{rules}\nAnswer: {answer}"


def chat_ids(tokenizer: TokenizerLike, *, turn: str, answer: str) -> tuple[list[int], list[int]]:
    """Ids of a user turn and of its answer, in the tokenizer's own chat template."""
    return (
        encode_turn(tokenizer, family=TOKENIZER_FAMILY, text=turn),
        encode_target(tokenizer, family=TOKENIZER_FAMILY, text=answer),
    )


def one_step_chat(rng: random.Random, problem: EnrichedProblem) -> tuple[str, str]:
    """A one-step problem as some role's turn and target."""
    role = rng.choice(list(Role))
    knowledge = join_knowledge(problem.knowledge) if role is Role.DEEP_REASONER else None
    turn = user_turn(role, question=problem.problem.question, knowledge=knowledge)
    return turn, role_target(role, problem)


def teacher_chat(problem: EnrichedProblem) -> tuple[str, str]:
    """A whole problem as the teacher's turn and its JSON answer."""
    turn = teacher_prompt(problem.problem)
    return turn, json.dumps({"output": list(problem.knowledge)})


def base_documents(tokenizer: TokenizerLike, *, seed: int) -> Iterator[list[int]]:
    """Endless documents as token ids, each ended by the end-of-text token."""
    rng = random.Random(f"base-{seed}")
    while True:
        kind = rng.choices(KINDS, KIND_WEIGHTS)[0]
        if kind == "arithmetic":
            yield encode_target(tokenizer, family=TOKENIZER_FAMILY, text=arithmetic_line(rng))
        elif kind == "copied":
            yield encode_target(tokenizer, family=TOKENIZER_FAMILY, text=copied_lines(rng))
        elif kind == "one_step":
            turn, answer = one_step_chat(rng, draw_train(rng, ONE_STEP_FAMILIES))
            prompt, target = chat_ids(tokenizer, turn=turn, answer=answer)
            yield prompt + target
        else:
            text = plain_document(rng, draw_whole(rng))
            yield encode_target(tokenizer, family=TOKENIZER_FAMILY, text=text)


def tokenizer_texts(*, seed: int, count: int) -> Iterator[str]:
    """Texts that the tokenizer is trained on: everything that a prompt or target may hold."""
    rng = random.Random(f"tokenizer-{seed}")
    for _ in range(count):
        yield arithmetic_line(rng)
        problem = draw_whole(rng)
        for role in Role:
            knowledge = join_knowledge(problem.knowledge) if role is Role.DEEP_REASONER else None
            yield user_turn(role, question=problem.problem.question, knowledge=knowledge)
            yield role_target(role, problem)
        turn, answer = teacher_chat(problem)
        yield turn
        yield answer
