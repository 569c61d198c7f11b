"""What the misbehaving server answers: knowledge made from the question, and ways to spoil it.

    rules_for("Tom has 12 apples ...")   # always the same four, other ones for other questions

Every question has rules of its own, so that a test can tell whether a problem got the knowledge of
its own question. They pass the knowledge gate: no digits, no names, no phrase of any question.
`spoil` turns a good answer's text into one of `TEXT_FAULTS`, of which `USABLE` can still be read.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

VERBS = (
    "multiplying",
    "adding",
    "subtracting",
    "dividing",
    "comparing",
    "rounding",
    "doubling",
    "halving",
    "tallying",
    "grouping",
    "scaling",
    "averaging",
    "combining",
    "sharing",
    "converting",
    "cancelling",
)
NOUNS = (
    "quantity",
    "remainder",
    "product",
    "quotient",
    "fraction",
    "ratio",
    "difference",
    "portion",
    "subtotal",
    "unit",
    "interval",
    "multiple",
    "percentage",
    "estimate",
    "average",
    "quantum",
)
PLACES = (
    "column",
    "bracket",
    "numerator",
    "denominator",
    "equation",
    "formula",
    "expression",
    "identity",
    "proportion",
    "sequence",
    "relation",
    "balance",
    "ledger",
    "diagram",
    "table",
    "schedule",
)
OPENINGS = ("Start by", "Continue by", "Proceed by", "Finish by")
QUESTION = re.compile(r"(?:Question|Problem): (.*?)(?:\n\n|\Z)", re.DOTALL)

# Faults of the text alone; the rest of the answer is in order.
TEXT_FAULTS = (
    "malformed",
    "empty list",
    "wrong keys",
    "not strings",
    "prose",
    "fenced",
    "thinking",
)
# Faults that leave the knowledge readable.
USABLE = frozenset({None, "slow drip", "prose", "fenced", "thinking"})


def question_in(messages: list[dict[str, Any]]) -> str:
    """The question that a chat asks about; the whole text where none is marked."""
    text = "\n".join(str(message.get("content") or "") for message in messages)
    match = QUESTION.search(text)
    return match.group(1).strip() if match else text


def question_id(question: str) -> str:
    """Short content hash of a question."""
    return hashlib.sha256(_marked(question).encode()).hexdigest()[:16]


def rules_for(question: str, *, model: str = "") -> list[str]:
    """The rules of this question; another model has others."""
    bits = int.from_bytes(hashlib.sha256(f"{model}\0{_marked(question)}".encode()).digest())
    rules = []
    for opening in OPENINGS:
        words = []
        for choices in (VERBS, NOUNS, PLACES, VERBS, NOUNS, PLACES):
            bits, index = divmod(bits, len(choices))
            words.append(choices[index])
        verb, noun, place, second, other, where = words
        rules.append(
            f"{opening} {verb} each {noun} inside its {place}, "
            f"then {second} whatever {other} its {where} still holds."
        )
    return rules


def _marked(question: str) -> str:
    """What QUESTION finds of it: its first paragraph."""
    return question.strip().partition("\n\n")[0].strip()


def good_text(question: str, *, model: str = "") -> str:
    """The model's text when nothing is wrong."""
    return json.dumps({"output": rules_for(question, model=model)})


def spoil(text: str, fault: str | None) -> str:
    """A good text with one of TEXT_FAULTS; others leave it as it is."""
    if fault == "malformed":
        return text[: len(text) * 2 // 3]
    if fault == "empty list":
        return '{"output": []}'
    if fault == "wrong keys":
        return text.replace('"output"', '"rules_of_the_problem"')
    if fault == "not strings":
        return '{"output": [{"rule": 1}, null]}'
    if fault == "prose":
        return f"Certainly! Here is what you asked for:\n{text}\nI hope that this helps."
    if fault == "fenced":
        return f"```json\n{text}\n```"
    if fault == "thinking":
        return f'<think>A first try: {{"output": ["no"}} ... better so.</think>\n{text}'
    return text


def completion(request: Mapping[str, Any], *, fault: str | None, number: int) -> dict[str, Any]:
    """The body of /v1/chat/completions."""
    model = str(request.get("model", ""))
    text = spoil(good_text(question_in(request["messages"]), model=model), fault)
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    finish_reason = "stop"
    if fault == "refusal":
        message |= {"content": None, "refusal": "I cannot help with that."}
    elif fault == "content filter":
        message["content"], finish_reason = "", "content_filter"
    elif fault == "length":
        message["content"], finish_reason = text[: len(text) // 2], "length"
    num_prompt = sum(len(str(turn.get("content") or "")) for turn in request["messages"]) // 4
    num_completion = len(message["content"] or "") // 4
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": model,
        "choices": [] if fault == "no choices" else [
            {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
        ],
        "usage": {
            "prompt_tokens": num_prompt,
            "completion_tokens": num_completion,
            "total_tokens": num_prompt + num_completion,
        },
    }  # fmt: skip
