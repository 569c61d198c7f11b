"""Grading at size: results as they finish, and a client that goes on through everything."""

import asyncio
import itertools
import json
import threading
from pathlib import Path

import pytest
from scripting import script, texts
from typer.testing import CliRunner

from lorid.batches import MAX_BYTES_PER_REQUEST, grade_all, in_requests
from lorid.cli.app import app
from lorid.client import Client
from lorid.engines.scripted import ScriptedEngine
from lorid.errors import DataError, EndpointBusy, EngineError, ServeError
from lorid.jsonl import healed
from lorid.method.roles import Role

QUESTION = "Tom has 3 apples and finds 4 more. How many are there?"
NDJSON = {"Accept": "application/x-ndjson"}


def engine() -> ScriptedEngine:
    return ScriptedEngine(script(intuitive=texts("7"), deep=texts("7")))


def items_of(number: int, **fields) -> list[dict]:
    fields = fields or {"reference": "7"}
    return [{"id": str(n), "question": f"{QUESTION} {n}", **fields} for n in range(number)]


def write_items(path: Path, items) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def grade_file(*arguments) -> tuple[int, str]:
    """Exit code and output of `lorid grade`."""
    result = CliRunner().invoke(app, ["grade", *map(str, arguments)])
    if isinstance(result.exception, Exception):
        raise result.exception
    return result.exit_code, result.output


def test_results_stream_as_whole_lines_and_the_summary_comes_last(endpoint):
    body = {"items": [*items_of(50), {"id": "bad"}], "seed": 1}
    whole = endpoint(engine()).post("/v1/grade", json=body).json()
    response = endpoint(engine()).post("/v1/grade", json=body, headers=NDJSON)
    assert response.headers["content-type"].startswith("application/x-ndjson")
    *rows, last = [json.loads(line) for line in response.text.splitlines()]
    assert sorted(rows, key=lambda row: row["id"]) == sorted(
        whole["results"], key=lambda row: row["id"]
    )
    assert last == {"summary": whole["summary"]}
    assert last["summary"]["num_errors"] == 1


def test_a_result_comes_before_the_others_are_done(served):
    may_end = threading.Event()

    async def write(request):
        while not (request.question.endswith(" 0") or may_end.is_set()):
            await asyncio.sleep(0.005)
        return "--> 7 END"

    url = served(ScriptedEngine({role: write for role in Role}))
    with Client(url) as client:
        stream = client.grade_stream(items_of(5))
        assert next(stream)["id"] == "0"
        may_end.set()
        assert {row["id"] for row in stream} == set("1234")


def test_ten_thousand_items_in_one_request(served):
    items = items_of(10_000, reference="7", submission="7")
    with Client(served(engine())) as client:
        ids = [row["id"] for row in client.grade_stream(items)]
    assert len(ids) == 10_000
    assert set(ids) == {item["id"] for item in items}


def test_what_is_under_way_is_bounded_whatever_the_batch(served):
    most = []

    async def write(request):
        most.append(scripted.num_running)
        await asyncio.sleep(0)
        return "--> 7 END"

    scripted = ScriptedEngine({role: write for role in Role})
    url = served(scripted, serving={"max_concurrent_questions": 4})
    with Client(url) as client:
        assert len(list(client.grade_stream(items_of(200)))) == 200
    assert max(most) <= 8


def test_requests_hold_so_many_items_and_bytes():
    sizes = [len(chunk) for chunk in in_requests(items_of(25), items_per_request=10)]
    assert sizes == [10, 10, 5]
    heavy = items_of(3, submission="x" * (MAX_BYTES_PER_REQUEST // 2 + 1))
    assert [len(chunk) for chunk in in_requests(heavy, items_per_request=10)] == [1, 1, 1]
    assert list(in_requests([], items_per_request=10)) == []


class Shaky:
    """A client whose requests end as scripted: an error, or so many rows and then an error."""

    def __init__(self, *script: object) -> None:
        self.script = iter(script)
        self.asked: list[list[str]] = []

    def grade_stream(self, items, **_):
        self.asked.append([item["id"] for item in items])
        turn = next(self.script, None)
        if isinstance(turn, Exception):
            raise turn
        for item in items[: turn if isinstance(turn, int) else None]:
            passing = {"error": "gone", "error_type": "unavailable", "verdict": None}
            row = {"id": item["id"], "verdict": "correct", "error": None, "error_type": None}
            yield row | passing if turn == "unavailable" else row
        if isinstance(turn, int):
            raise EndpointBusy("cut off")


def graded(client, number=6, **settings) -> tuple[list[dict], list[float]]:
    waits: list[float] = []
    rows = list(grade_all(client, items_of(number), sleep=waits.append, **settings))
    return rows, waits


def test_a_refusal_is_waited_out_as_long_as_it_asks():
    client = Shaky(1, EndpointBusy("full", retry_after_s=7), EndpointBusy("full"))
    rows, waits = graded(client)
    assert {row["id"] for row in rows} == set("012345")
    assert waits[1] >= 7 > waits[2]


def test_a_stream_that_is_cut_off_goes_on_with_what_is_open():
    client = Shaky(2, 3)
    rows, _ = graded(client)
    assert [row["id"] for row in rows] == list("012345")
    assert client.asked == [list("012345"), list("2345"), list("5")]


def test_items_whose_error_may_pass_are_sent_again_and_then_given_as_they_are():
    rows, _ = graded(Shaky("unavailable", "unavailable"))
    assert {row["verdict"] for row in rows} == {"correct"}
    rows, _ = graded(Shaky(*["unavailable"] * 9))
    assert {row["error_type"] for row in rows} == {"unavailable"}
    assert len(rows) == 6


def test_an_endpoint_that_was_never_there_is_not_waited_for():
    absent = EndpointBusy("nothing answers", is_absent=True)
    with pytest.raises(ServeError, match="nothing answers"):
        graded(Shaky(absent))
    rows, _ = graded(Shaky(1, absent, absent))
    assert len(rows) == 6


def test_patience_ends_when_nothing_comes_any_more():
    with pytest.raises(ServeError, match="full"):
        graded(Shaky(*[EndpointBusy("full")] * 9), patience_s=0)


def test_a_file_is_graded_and_resumed(served, tmp_path):
    asked = engine()
    url = served(asked)
    items = write_items(tmp_path / "items.jsonl", items_of(30))
    out = tmp_path / "out.jsonl"
    code, printed = grade_file(items, "-o", out, "--url", url)
    assert code == 0
    assert "30 graded: 30 correct" in printed
    assert {row["id"] for row in rows_of(out)} == {str(n) for n in range(30)}
    # As if it had been killed in the middle of writing the 21st row.
    lines = out.read_text().splitlines(keepends=True)
    out.write_text("".join(lines[:20]) + lines[20][:25])
    before = len(asked.history)
    code, printed = grade_file(items, "-o", out, "--url", url)
    assert code == 0
    assert "cut off" in printed
    assert "20 are graded already, 10 to go" in printed
    assert {row["id"] for row in rows_of(out)} == {str(n) for n in range(30)}
    assert len(asked.history) - before == 3 * 10
    assert grade_file(items, "-o", out, "--url", url)[0] == 0


def test_items_that_are_errors_are_exit_code_1(served, tmp_path):
    items = write_items(tmp_path / "items.jsonl", [*items_of(2), {"id": "bad", "question": "?"}])
    out = tmp_path / "out.jsonl"
    code, printed = grade_file(items, "-o", out, "--url", served(engine()))
    assert code == 1
    assert "1 errors" in printed
    assert len(rows_of(out)) == 3


def test_an_id_that_is_there_twice_is_refused_before_anything_is_asked(tmp_path):
    items = write_items(tmp_path / "items.jsonl", [*items_of(2), *items_of(1)])
    with pytest.raises(DataError, match="line 3: id '0' is there already"):
        grade_file(items, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("torn", [b"", b"{", b'{"a": 1}', b"x" * 200_000])
@pytest.mark.parametrize("whole", [b"", b'{"id": 1}\n', b'{"id": 1}\n' * 30_000])
def test_only_what_follows_the_last_line_feed_is_cut_off(tmp_path, torn, whole):
    path = tmp_path / "out.jsonl"
    path.write_bytes(whole + torn)
    assert healed(path) == bool(torn)
    assert path.read_bytes() == whole


def test_a_question_is_shown_round_by_round(served):
    url = served(ScriptedEngine(script(intuitive=texts("7", "5"), deep=texts("8", "7"))))
    result = CliRunner().invoke(app, ["solve", QUESTION, "--url", url])
    assert result.exit_code == 0
    assert result.output.index("round 1") < result.output.index("round 2")
    assert result.output.strip().endswith("7  (agreed, 2 rounds)")
    told = json.loads(CliRunner().invoke(app, ["solve", QUESTION, "--url", url, "--json"]).output)
    assert told["answer"] == "7"


def test_a_rule_that_is_named_decides_and_one_that_is_not_there_is_one_line(served, tmp_path):
    """By the endpoint's own rule this one agrees in the first round."""
    url = served(engine())

    def lorid(*arguments) -> tuple[int, str]:
        result = CliRunner().invoke(app, [*map(str, arguments), "--url", url])
        if isinstance(result.exception, Exception):
            raise result.exception
        return result.exit_code, result.output

    majority = ["--rule", "majority", "--max-rounds", 3]
    _, shown = lorid("solve", QUESTION, *majority)
    assert shown.strip().endswith("7  (agreed, 3 rounds)")
    assert json.loads(lorid("solve", QUESTION, *majority, "--json")[1])["num_rounds"] == 3
    assert json.loads(lorid("solve", QUESTION, "--json")[1])["num_rounds"] == 1
    items = write_items(tmp_path / "items.jsonl", items_of(2))
    lorid("grade", items, "-o", tmp_path / "out.jsonl", *majority)
    assert [row["num_rounds"] for row in rows_of(tmp_path / "out.jsonl")] == [3, 3]
    for arguments in (["solve", QUESTION], ["grade", items, "-o", tmp_path / "none.jsonl"]):
        with pytest.raises(ServeError, match=r"unknown rule 'best'; choose paper") as raised:
            lorid(*arguments, "--rule", "best")
        assert raised.value.exit_code == 2
    assert not rows_of(tmp_path / "none.jsonl")


def test_an_engine_that_fails_once_costs_one_more_try_and_nothing_else(served):
    turns = itertools.count()

    def write(request):
        if next(turns) == 4:
            raise EngineError("once")
        return "--> 7 END"

    url = served(ScriptedEngine({role: write for role in Role}))
    with Client(url) as client:
        rows = list(grade_all(client, items_of(10), sleep=lambda _: None))
    assert {row["id"] for row in rows} == {str(n) for n in range(10)}
    assert {row["verdict"] for row in rows} == {"correct"}
