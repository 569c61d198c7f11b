r"""The final answer in a model's or a dataset's text.

    extract_answer("... so 9 * 2 = $18.\n--> 18 END")   # "18"

Looked for in this order: `--> X END`, `#### X`, the last `\boxed{X}` (or `\fbox`), "the answer is
X", a line `A: X`, and as a last resort the last number. A text that was cut off at the token limit
counts only with a marker that is certainly complete. Every search is linear in the text.
"""

import re
from collections import deque

MAX_ANSWER_CHARS = 1000
NUMBER = re.compile(
    r"(?<![\w.])[-\u2212]?[$\u20ac\u00a3]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?%?"
)
_PHRASE_WITH_CUE = re.compile(
    r"(?:final answer(?: is)?\s*[:=]?|answer is\s*[:=]?|answer\s*[:=])\s*", re.IGNORECASE
)
_LINE_A = re.compile(r"^A:[ \t]*", re.MULTILINE)
_MARKS = "*_`\"' \t\r\n"


def extract_answer(text: str, *, truncated: bool = False) -> str | None:
    """The final answer as written, without marks around it; None when there is none.

    `truncated`: the text was cut off, so only `--> X END` and a closed box count.
    """
    for find in (_arrow, _boxed) if truncated else (_arrow, _hashes, _boxed, _phrase, _last_number):
        answer = find(text)
        if answer:
            cleaned = _clean(answer)
            if cleaned:
                return cleaned[:MAX_ANSWER_CHARS]
    return None


def _arrow(text: str) -> str | None:
    end = text.rfind("END")
    while end >= 0:
        start = text.rfind("-->", 0, end)
        if start < 0:
            return None
        between = text[start + 3 : end]
        if "\n" not in between.strip():
            return between
        end = text.rfind("END", 0, start)
    return None


def _hashes(text: str) -> str | None:
    start = text.rfind("####")
    return text[start + 4 :].lstrip().partition("\n")[0] if start >= 0 else None


def _boxed(text: str) -> str | None:
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if start < 0:
        return None
    rest = text[start:].partition("box")[2].removeprefix("ed")
    if not rest.lstrip().startswith("{"):
        return re.split(r"[\s$.]", rest.strip(), maxsplit=1)[0] if rest.startswith(" ") else None
    depth = 0
    begin = rest.index("{")
    for position in range(begin, len(rest)):
        depth += {"{": 1, "}": -1}.get(rest[position], 0)
        if depth == 0:
            return rest[begin + 1 : position]
    return None


def _phrase(text: str) -> str | None:
    newest = deque(_PHRASE_WITH_CUE.finditer(text), maxlen=1)
    found = newest[0] if newest else None
    for line in _LINE_A.finditer(text):
        if found is None or line.start() > found.start():
            found = line
    if found is None:
        return None
    sentence = text[found.end() : found.end() + MAX_ANSWER_CHARS].lstrip().partition("\n")[0]
    sentence = re.split(r"\.(?:\s|$)", sentence, maxsplit=1)[0]
    if sentence.startswith("$") and "$" in sentence[1:]:
        return sentence[1:].partition("$")[0]
    return sentence


def _last_number(text: str) -> str | None:
    numbers = deque(NUMBER.finditer(text), maxlen=1)
    return numbers[0].group() if numbers else None


def _clean(answer: str) -> str:
    answer = answer.strip(_MARKS).rstrip(".").strip(_MARKS)
    if len(answer) > 2 and answer[0] == answer[-1] == "$":
        answer = answer[1:-1].strip()
    return answer
