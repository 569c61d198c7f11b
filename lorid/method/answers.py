r"""The final answer in a model's or a dataset's text.

    extract_answer("... so 9 * 2 = $18.\n--> 18 END")   # "18"

Looked for in this order:

1. `--> X END`, the target of the published adapters;
2. the last of `\boxed{X}` (`\fbox{X}`, `\boxed X`), `<answer>X</answer>` and `#### X`;
3. the last "the answer is X", "final answer: X", `A: X`, or a heading "Answer" with X below it;
4. mathematics between dollar signs that ends the text, or else the last number.

A text that was cut off at the token limit counts only with a marker that is certainly complete: its
last number is whatever stood before the cut. Every search is linear in the text. Answers come back
as written, without the marks around them; what they mean is `lorid.method.equivalence`'s business.
"""

import re
from collections import deque
from collections.abc import Iterable

MAX_ANSWER_CHARS = 1000
MAX_BOXES = 200
MAX_BETWEEN_BOXES = 40
_MARKS = "*_`\"' \t\r\n\u200b\ufeff"
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
NUMBER = re.compile(
    r"(?<![\w.^{])[-\u2212\u2013]?[$\u20ac\u00a3]?(?:"
    r"\d*\\[dt]?frac\{-?\d+\}\{-?\d+\}"
    rf"|(?:{_DIGITS})(?:\s*(?:\\times|\u00d7|\*)\s*10)?(?:\^\{{?-?\d+\}}?)?(?: \d+/\d+|/\d+)?"
    r")(?:\\?%)?"
)
_CUE = re.compile(
    r"(?:\b(?:final |correct |right )?(?:answer|result|solution|choice|option)"
    r"(?:\s+(?:here|therefore|thus|then|to\s[^.:\n]{1,60}?))?\s+(?:is|are|was|would be|will be)"
    r"(?:\s+(?:therefore|thus|then|simply|just|indeed|equal to))?\b"
    r"|\bfinal answer\b(?=[\s*_`]*(?:[:=\n]|\$|\\\(|\d))|\banswer\b(?=[\"'*_`]*\s*[:=]))"
    r"[\"'*_`]*\s*[:=]?",
    re.IGNORECASE,
)
_LINE_A = re.compile(r"^(?:\*\*)?A(?:ns)?(?:\*\*)?[.:](?:\*\*)?[ \t]*", re.MULTILINE)
_HEADING = re.compile(
    r"^[ \t]*(?:#{1,6}[ \t]*|\*\*)?(?:final answer|answer)[ \t]*[:.]?(?:\*\*)?[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
_TAG = re.compile(r"<answer>(.{0,2000}?)</answer>", re.DOTALL | re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s|\*|$)|\n")
_REASON = re.compile(r"[,;]?\s+(?:because|since|which|so that|so|where|when|as)\s")
_BETWEEN_BOXES = re.compile(r"[\s$,;.()\\]*(?:and|or|,|\\text\{\s*(?:and|or)\s*\})[\s$\\()]*")
_MATH = re.compile(
    r"\$\$([^$]{1,600})\$\$|\$([^$\n]{1,400})\$|\\\((.{1,400}?)\\\)|\\\[([^\]]{1,600})\\\]"
)
_WORDS = re.compile(r"(?<!\\)\b[A-Za-z]{2,}")
_ABBREVIATION = re.compile(r"\b(?:[ap]|e\.g|i\.e|approx|vs|no|St|Mr|Mrs|Dr|\w\.\w)$", re.IGNORECASE)


def extract_answer(text: str, *, truncated: bool = False) -> str | None:
    """The final answer as written, without marks around it; None when there is none.

    `truncated`: the text was cut off, so only a marker that is complete counts.
    """
    finders = (_arrow, _marked, _phrase) if truncated else (_arrow, _marked, _phrase, _last_resort)
    for find in finders:
        found = find(text, truncated)
        cleaned = _clean(found) if found else ""
        if cleaned:
            return cleaned[:MAX_ANSWER_CHARS]
    return None


def _arrow(text: str, truncated: bool) -> str | None:
    end = text.rfind("END")
    while end >= 0:
        start = text.rfind("-->", 0, end)
        if start < 0:
            break
        between = text[start + 3 : end]
        if "\n" not in between.strip():
            return between
        end = text.rfind("END", 0, start)
    start = text.rfind("-->")
    return None if truncated or start < 0 else text[start + 3 :].lstrip().partition("\n")[0]


def _marked(text: str, truncated: bool) -> str | None:
    """The later of the last box, the last tag and the last `####` line."""
    found = [_boxed(text), _tagged(text), _hashes(text, truncated)]
    return max((one for one in found if one), default=(-1, None), key=lambda one: one[0])[1]


def _boxed(text: str) -> tuple[int, str | None] | None:
    start = _last_box(text, len(text))
    if start < 0:
        return None
    content, end = _box_content(text, start)
    parts = [content] if content is not None else []
    # "$\boxed{2}$ and $\boxed{3}$" are one answer with two members.
    for _ in range(MAX_BOXES):
        before = _last_box(text, start)
        if not parts or before < 0:
            break
        previous, end = _box_content(text, before)
        is_near = start - end < MAX_BETWEEN_BOXES
        if previous is None or not is_near or not _BETWEEN_BOXES.fullmatch(text, end, start):
            break
        parts.insert(0, previous)
        start = before
    return start, ", ".join(parts) if parts else None


def _last_box(text: str, before: int) -> int:
    return max(text.rfind("\\boxed", 0, before), text.rfind("\\fbox", 0, before))


def _box_content(text: str, start: int) -> tuple[str | None, int]:
    """What a box holds, and the position after it; None when it is not closed."""
    begin = start + (6 if text.startswith("\\boxed", start) else 5)
    while begin < len(text) and text[begin] in " \t":
        begin += 1
    if not text.startswith("{", begin):
        token = re.compile(r"\\[a-zA-Z]+(?:\{[^{}]*\})*|[^\s$.,;\\{}]+").match(text, begin)
        return (token.group(), token.end()) if token else (None, begin)
    depth = 0
    for brace in re.compile(r"[{}]").finditer(text, begin):
        if text[brace.start() - 1] == "\\":
            continue
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return text[begin + 1 : brace.start()], brace.end()
    return None, len(text)


def _tagged(text: str) -> tuple[int, str | None] | None:
    last = _last(_TAG.finditer(text)) if "</answer>" in text.lower() else None
    return (last.start(), last[1]) if last else None


def _hashes(text: str, truncated: bool) -> tuple[int, str | None] | None:
    end = len(text)
    while (start := text.rfind("####", 0, end)) >= 0:
        end = start
        if text.startswith("#", start + 4) or text[max(0, start - 1) : start] == "#":
            continue
        newline = text.find("\n", start)
        line = text[start + 4 : len(text) if newline < 0 else newline].lstrip(" \t")
        # "#### Step 2: ..." is a heading of Markdown, not an answer.
        is_heading = len(_WORDS.findall(line[:200])) > 2 and not re.match(r"[-$\\(\d]", line)
        if line.strip() and not is_heading and not _HEADING.match(line):
            return (start, line) if newline >= 0 or not truncated else None
    return None


def _phrase(text: str, truncated: bool) -> str | None:
    heading = _last(_HEADING.finditer(text))
    newest = _last(_CUE.finditer(text))
    for found in (_last(_LINE_A.finditer(text)), heading):
        if found and (newest is None or found.end() > newest.end()):
            newest = found
    if newest is None:
        return None
    rest = text[newest.end() : newest.end() + 2 * MAX_ANSWER_CHARS].lstrip(_MARKS + ":=")
    sentence, is_complete = _first_sentence(rest)
    return None if truncated and not is_complete else _from_prose(sentence)


def _first_sentence(text: str) -> tuple[str, bool]:
    for end in _SENTENCE_END.finditer(text):
        head = text[: end.start()]
        if end.group() == "\n" and (head.count("\\[") > head.count("\\]") or head.count("$$") % 2):
            continue
        if end.group() == "." and _ABBREVIATION.search(head[-8:]):
            continue
        if end.group() == "." and end.end() == len(text):
            return head, True
        if head.strip():
            return head, True
    return text, False


def _from_prose(sentence: str) -> str:
    """The answer in what follows "the answer is"."""
    segments = [_segment(found) for found in _MATH.finditer(sentence)]
    segments = [segment for segment in segments if _is_mathematics(segment)]
    starts_with = re.match(r"(?:[-+($\\\[\u2212\u20ac\u00a3]|\d)", sentence)
    if segments and not (starts_with and sentence[0].isdigit()):
        if len(segments) > 1 and re.search(r"\$\s*(?:,|and|or|,\s*and)\s*\$", sentence):
            return ", ".join(segments)
        unit = sentence.rpartition(segments[-1])[2].lstrip("$)\\] ")
        is_unit = sentence.startswith(("$", "\\(", "\\[")) and 0 < len(_WORDS.findall(unit)) <= 2
        first = segments[0] if starts_with else segments[-1]
        return f"{first} {unit}" if is_unit and len(segments) == 1 else first
    head = _REASON.split(sentence, maxsplit=1)[0]
    if re.search(r"\d", head):
        sentence = head
    if starts_with or len(_WORDS.findall(sentence)) <= 3 or "=" in sentence:
        return sentence
    number = _last(NUMBER.finditer(sentence))
    return number.group() if number else sentence


def _segment(found: re.Match[str]) -> str:
    return next(group for group in found.groups() if group).strip()


def _is_mathematics(segment: str) -> bool:
    """Whether what stands between two dollar signs is a formula: "$5 and he pays $6" is not."""
    plain = re.sub(
        r"\\(?:text|mathrm|mbox|operatorname|begin|end|textbf)\s*\{[^{}]*\}", "", segment
    )
    return bool(segment) and len(_WORDS.findall(plain)) <= 1


def _last_resort(text: str, truncated: bool) -> str | None:
    last = _last(_MATH.finditer(text))
    if last:
        after = text[last.end() :].strip(_MARKS + ".,;:!)")
        if len(after) < 40 and not re.search(r"\d", after) and _is_mathematics(_segment(last)):
            answer = _segment(last).rstrip(".,; ")
            if re.search(r"\d", answer):
                return re.split(r"(?<![<>!\\])=", answer)[-1] if "," not in answer else answer
    number = _last(NUMBER.finditer(text))
    return number.group() if number else None


def _last(found: Iterable[re.Match[str]]) -> re.Match[str] | None:
    newest = deque(found, maxlen=1)
    return newest[0] if newest else None


def _clean(answer: str) -> str:
    """Without emphasis, dollar signs of mathematics and the full stop around the answer."""
    previous = None
    while previous != answer:
        previous = answer
        answer = answer.strip(_MARKS).rstrip(".,;:!").strip(_MARKS)
        if answer.endswith("}") and answer.count("}") > answer.count("{"):
            answer = answer[:-1]
        for opening, closing in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
            inner = answer[len(opening) : -len(closing)]
            is_wrapped = answer.startswith(opening) and answer.endswith(closing)
            if is_wrapped and len(answer) > len(opening + closing) and opening not in inner:
                answer = inner.strip()
    return answer
