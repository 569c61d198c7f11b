"""How well departures are found: on GSM8K's own rationales, and with one number of them changed.

    python benchmarks/tutoring.py GSM8K_FOLDER [--show]

The folder holds `train.jsonl` and `test.jsonl` of github.com/openai/grade-school-math. The reader
was tuned on train. Test was kept for one run (`tutoring-held-out-DATE.json`); what that run showed
was mended afterwards. Writes `benchmarks/results/tutoring-DATE.json`.

Accusations: every line of a gold rationale that is said not to hold, as written and without the
notes for a calculator (`<<48/2=24>>`). All of those in `TRUE_ERRORS` were read by a person, and are
errors of the data set; the others are false accusations.

Recall: one number of one computation is changed, chosen by a seed: its result, or an operand in
the words before it. Found is the very line, and no other counts. The notes only tell where the
computations are, and are removed (`plain`), or changed with the words (`notes`). Prose that does
not spell its computation out ("5 boxes of 3 make 15") cannot be checked by arithmetic; `spelled`
counts the others alone.
"""

import argparse
import json
import os
import random
import re
import statistics
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from result_file import write_result

from lorid.method.departures import Departure, check_rationale
from lorid.method.rationals import rational

NOTE = re.compile(r"<<([^<>\n=]+)=([^<>\n]+)>>")
NUMBER = re.compile(
    r"(?<![\d.,/])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\d/]|[.,]\d)|(?<![\d.])\.\d+"
)
TRUE_ERRORS: dict[str, frozenset[int]] = {
    "train": frozenset((
        167, 168, 198, 224, 502, 716, 1817, 3002, 3334, 3409, 3859, 4593, 4691, 4973, 5195, 5350,
        5781, 6001, 6157, 6256, 6700, 6713, 6760, 6812, 6842, 7178, 7444,
    )),
    "test": frozenset((598, 1024)),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Changed:
    """A rationale with one wrong number on `line`; `kind` is what was changed."""

    plain: str
    notes: str
    line: int
    kind: str
    is_spelled: bool


def without_notes(rationale: str) -> str:
    """The words alone."""
    return re.sub(r"<<[^<>\n]*>>", "", rationale)


def other_number(text: str, rng: random.Random) -> str:
    """The number with one digit changed, or one added or dropped: of another value."""
    while True:
        at = rng.choice([place for place, char in enumerate(text) if char.isdigit()])
        digit = rng.choice("0123456789")
        made = rng.choice(
            (text[:at] + digit + text[at + 1 :], text + digit, text[:at] + text[at + 1 :])
        )
        value = rational(made.replace(",", "")) if NUMBER.fullmatch(made) else None
        has_no_zero = not re.match(r"0\d", made)
        if value is not None and has_no_zero and value != rational(text.replace(",", "")):
            return made


def changed(rationale: str, rng: random.Random) -> Changed | None:
    """The rationale with one number changed; None where the draw met nothing to change."""
    lines = rationale.split("\n")
    places = [(at, note) for at, line in enumerate(lines) for note in NOTE.finditer(line)]
    if not places:
        return None
    at, note = rng.choice(places)
    line, kind = lines[at], rng.choice(("result", "operand"))
    expression, result = note.groups()
    before, after = line[: note.start()], line[note.end() :]
    if kind == "result":
        written = re.match(r"\s*\$?\s*", after)
        start = written.end() if written else 0
        number = NUMBER.match(after, start)
        if number is None or rational(number[0].replace(",", "")) != rational(result):
            return None
        new = other_number(number[0], rng)
        after = after[:start] + new + after[number.end() :]
        note_now = f"<<{expression}={new.replace(',', '')}>>"
    else:
        operands = set(NUMBER.findall(expression))
        found = [one for one in NUMBER.finditer(before) if one[0].replace(",", "") in operands]
        if not found:
            return None
        number = found[-1]
        old, new = number[0], other_number(number[0], rng)
        expression_now = re.sub(
            rf"(?<![\d.]){re.escape(old.replace(',', ''))}(?![\d.])", new.replace(",", ""),
            expression, count=1,
        )  # fmt: skip
        value, said = rational(expression_now.replace("*", "\\cdot ")), rational(result)
        if value is None or said is None or abs(value - said) < 1:
            return None  # another way to the same number, or to one that it may be rounded from
        before = before[: number.start()] + new + before[number.end() :]
        note_now = f"<<{expression_now}={result}>>"
    rest = lines[:at], lines[at + 1 :]
    whole = ["\n".join([*rest[0], before + middle + after, *rest[1]]) for middle in ("", note_now)]
    return Changed(
        plain=without_notes(whole[0]),
        notes=whole[1],
        line=at + 1,
        kind=kind,
        is_spelled=_is_spelled(without_notes(line[: note.start()]), expression),
    )


def _is_spelled(before: str, expression: str) -> bool:
    def squeezed(text: str) -> str:
        return re.sub(r"[\s$,]", "", text).replace("x", "*").replace("\u00d7", "*")

    return squeezed(before).endswith(squeezed(expression) + "=")


def accusations(rationales: list[str], *, split: str) -> dict[str, Any]:
    """What is said of gold rationales, and how long each took."""
    told: dict[int, Departure] = {}
    seconds: list[float] = []
    for number, rationale in enumerate(rationales):
        began = time.process_time()
        found = check_rationale(rationale)
        seconds.append(time.process_time() - began)
        found = found or check_rationale(without_notes(rationale))
        if found is not None:
            told[number] = found
    false = {
        n: f"{one.claim} (exactly {one.expected})"
        for n, one in told.items()
        if n not in TRUE_ERRORS[split]
    }
    return {
        "rationales": len(rationales),
        "accused": len(told),
        "true_errors_of_the_data": len(told) - len(false),
        "false_accusations": len(false),
        "accused_claims": {
            n: f"line {one.line}: {one.claim} (exactly {one.expected})" for n, one in told.items()
        },
        "median_cpu_ms": round(1000 * statistics.median(seconds), 3),
        "p99_cpu_ms": round(1000 * statistics.quantiles(seconds, n=100)[98], 3),
    }


def recall(rationales: list[str], *, split: str, seed: int, show: bool) -> dict[str, Any]:
    """How often the changed line is found, by what was changed."""
    rng = random.Random(seed)
    counts: dict[str, Counter[str]] = {}
    for number, rationale in enumerate(rationales):
        one = None if number in TRUE_ERRORS[split] else changed(rationale, rng)
        if one is None:
            continue
        for form, text in (("plain", one.plain), ("notes", one.notes)):
            found = check_rationale(text)
            said = "missed" if found is None else "found" if found.line == one.line else "elsewhere"
            for group in (form, f"{form} {one.kind}", *([f"{form} spelled"] * one.is_spelled)):
                counts.setdefault(group, Counter())[said] += 1
            if show and form == "plain" and one.is_spelled and said != "found":
                print(f"{number} {said}: {text.split(chr(10))[one.line - 1]}")
    return {
        group: {
            "changed": count.total(),
            **{said: count[said] for said in ("found", "missed", "elsewhere")},
            "recall": round(count["found"] / count.total(), 4),
        }
        for group, count in sorted(counts.items())
    }


def main() -> None:
    """Measure both splits, write, and fail on an accusation that nobody has looked at."""
    parser = argparse.ArgumentParser(description="Measure departures on GSM8K.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--splits", nargs="*", default=["train", "test"])
    parser.add_argument("--name", default="tutoring", help="of the results file")
    parser.add_argument("--show", action="store_true", help="print what is missed of train")
    args = parser.parse_args()
    figures: dict[str, Any] = {}
    for split in args.splits:
        lines = (args.folder / f"{split}.jsonl").read_text().splitlines()
        rationales = [json.loads(line)["answer"] for line in lines]
        show = args.show and split == "train"
        figures[split] = {
            "accusations": accusations(rationales, split=split),
            "recall": recall(rationales, split=split, seed=args.seed, show=show),
        }
        print(split, json.dumps(figures[split], indent=1))
    if args.show:
        return
    command = f"python benchmarks/tutoring.py GSM8K_FOLDER --seed {args.seed} --name {args.name}"
    command += f" --splits {' '.join(args.splits)}"
    figures["load_average"] = os.getloadavg()
    print(write_result(args.name, figures, command=command))
    false = {split: figures[split]["accusations"]["false_accusations"] for split in args.splits}
    if any(false.values()):
        raise SystemExit(f"accusations that are not in TRUE_ERRORS: {false}; look at each")


if __name__ == "__main__":
    main()
