"""JSONL: one JSON value a line, read and written in one way everywhere.

    for number, value in read_lines(path): ...      # a line that is no JSON is a DataError value
    for number, value in read_array(path): ...      # a file that is one JSON array, value by value
    for number, row in read_jsonl(path): ...        # or raises, naming file and line

Lines end at a line feed only: JSON text may hold U+2028, U+0085 and their like, at which
`str.splitlines` would cut it. What Python's parser adds to JSON (NaN, Infinity) or refuses with
other exceptions (numbers of thousands of digits, very deep nesting) is no JSON here.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

from lorid.errors import DataError

_BEFORE_VALUE = re.compile(r"\s*([\[,])\s*")


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
    offset = 0
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            text = _decoded(line, path=path, offset=offset)
            offset += len(line)
            if text.strip():
                yield number, _value_or_error(text.rstrip("\n"))


def read_array(path: Path) -> Iterator[tuple[int, object]]:
    """Numbers (from 1) and values of a file that is one JSON array, one value in memory at a time.

    Raises:
        DataError: the file cannot be read, or is no array of JSON values.
    """
    with _opened(path) as file:
        text = _decoded(file.read(), path=path, offset=0)
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    position = 0
    for number in count(1):
        found = _BEFORE_VALUE.match(text, position)
        if found is None or (found[1] == "[") != (number == 1):
            break
        position = found.end()
        if number == 1 and text.startswith("]", position):
            break
        try:
            start = position
            _, position = decoder.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: value {number} of its array is not JSON") from error
        yield number, _value_or_error(text[start:position])
    if text[position:].strip() != "]":
        raise DataError(f"{path}: not one whole JSON array; rows may also stand in a JSONL file")


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
        file.writelines(map(json_line, rows))


def json_line(value: object) -> str:
    """A value as a line, its line feed included; for files that take rows one by one."""
    return json.dumps(value, ensure_ascii=False) + "\n"


def healed(path: Path) -> bool:
    """Cut off what stands after the last line feed: half a line that a kill has left.

    Returns whether there was any.
    """
    with path.open("r+b") as file:
        end = file.seek(0, 2)
        keep = end
        while keep > 0:
            start = max(0, keep - 65536)
            file.seek(start)
            found = file.read(keep - start).rfind(b"\n")
            if found >= 0:
                keep = start + found + 1
                break
            keep = start
        if keep < end:
            file.truncate(keep)
        return keep < end


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; name a JSONL file") from error


def _decoded(data: bytes, *, path: Path, offset: int) -> str:
    try:
        return data.decode("utf-8" if offset else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"cannot read {path}: byte {offset + error.start} is not UTF-8; "
            "convert the file to UTF-8"
        ) from error


def _value_or_error(text: str) -> object:
    try:
        return parse_json(text)
    except DataError as error:
        return error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")
