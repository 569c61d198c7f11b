"""JSONL: one JSON value a line, read and written in one way everywhere.

    for number, value in read_lines(path): ...      # a line that is no JSON is a DataError value
    for number, row in read_jsonl(path): ...        # or raises, naming file and line

Lines end at a line feed only: JSON text may hold U+2028, U+0085 and their like, at which
`str.splitlines` would cut it. What Python's parser adds to JSON (NaN, Infinity) or refuses with
other exceptions (numbers of thousands of digits, very deep nesting) is no JSON here.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, cast

from lorid.errors import DataError


def parse_json(text: str) -> object:
    """The value of a JSON text; raises DataError saying why it has none."""
    try:
        value: object = json.loads(text, parse_constant=_refuse_constant)
        if "\\ud" in text.lower():
            # A lone half of a surrogate pair is no text: no file or tokenizer takes it.
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DataError("not JSON: it holds half of a surrogate pair") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON: {str(error)[:100]}") from error
    return value


def read_lines(path: Path) -> Iterator[tuple[int, object]]:
    """Line numbers (from 1) and values; blank lines are passed over.

    A line that is not JSON gives the DataError itself as its value.

    Raises:
        DataError: the file cannot be read, or is not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; name a JSONL file") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"cannot read {path}: byte {error.start} is not UTF-8; convert the file to UTF-8"
        ) from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, parse_json(line)
            except DataError as error:
                yield number, error


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and JSON objects.

    Raises:
        DataError: the file cannot be read, or a line is no JSON object; names the line.
    """
    for number, value in read_lines(path):
        if isinstance(value, DataError):
            raise DataError(f"{path}, line {number}: {value}")
        if not isinstance(value, dict):
            raise DataError(f"{path}, line {number}: not a JSON object")
        yield number, cast("dict[str, Any]", value)


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line, UTF-8."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")
