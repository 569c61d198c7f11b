"""The pure parts of artifacts: parts of transfers, refused pickles, old records, lineage."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import re
import tarfile
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorid.artifacts.connection import connect
from lorid.artifacts.lineage import draw_lineage
from lorid.artifacts.pickles import refuse_pickle
from lorid.artifacts.progress import Amount, transfer_shown
from lorid.artifacts.records import (
    FileEntry,
    Record,
    differences,
    fingerprint,
    list_records,
    load_record,
    version_of,
)
from lorid.artifacts.retries import Persistence
from lorid.artifacts.store import open_store
from lorid.artifacts.transfer import MAX_PARTS, PART_BYTES, plan_parts
from lorid.errors import ArtifactDrifted, ArtifactError


@given(st.integers(min_value=0, max_value=5 * 1024**4))
def test_parts_follow_each_other_cover_all_and_are_few_enough(size):
    parts = plan_parts(size)
    assert len(parts) <= MAX_PARTS
    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    assert sum(part.length for part in parts) == size
    ends = [0, *(part.offset + part.length for part in parts)]
    assert [part.offset for part in parts] == ends[:-1]
    assert all(part.length >= PART_BYTES for part in parts[:-1])


class Calls:
    def __reduce__(self):
        return (print, ("called",))


def zipped(content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("data.pkl", content)
    return out.getvalue()


def tarred(content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("pickle")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


PICKLED = pickle.dumps(Calls())


@pytest.mark.parametrize(
    "content",
    [
        *(pickle.dumps(Calls(), protocol) for protocol in range(6)),
        pickle.dumps({"weights": [1.0]}, 2),
        gzip.compress(PICKLED),
        bz2.compress(PICKLED),
        lzma.compress(PICKLED),
        zlib.compress(PICKLED),
        zipped(PICKLED),
        b"first something else" + zipped(PICKLED),
        tarred(PICKLED),
        b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }" + PICKLED,
    ],
)
def test_pickles_are_refused_whatever_they_are_called(tmp_path, content):
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(content)
    with pytest.raises(ArtifactDrifted, match="pickled or archived"):
        refuse_pickle(path)


@pytest.mark.parametrize("name", ["w.bin", "w.pt", "W.PTH", "a.pkl", "a.ckpt", "x.joblib", "x.npz"])
def test_names_of_pickled_files_are_refused(tmp_path, name):
    (tmp_path / name).write_text("x")
    with pytest.raises(ArtifactDrifted):
        refuse_pickle(tmp_path / name)


@given(
    st.one_of(
        st.text().map(str.encode),
        st.dictionaries(st.text(), st.integers()).map(lambda row: json.dumps(row).encode()),
        st.binary(max_size=200).map(lambda rest: (len(rest)).to_bytes(8, "little") + b"{" + rest),
    )
)
def test_text_json_and_safetensors_are_not_taken_for_pickles(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "plain"
    path.write_bytes(content)
    refuse_pickle(path)


@pytest.mark.parametrize("content", [b"", b"config\nvalue\n.", b"I1\n.", gzip.compress(b"text")])
def test_what_only_looks_like_a_pickle_is_stored(tmp_path, content):
    (tmp_path / "notes.txt").write_bytes(content)
    refuse_pickle(tmp_path / "notes.txt")


def old_record(**changes):
    inputs = {"a": 1}
    return {
        "kind": "data", "name": "n", "version": fingerprint(inputs)[:12],
        "fingerprint": fingerprint(inputs), "inputs": inputs, "parents": [], "files": [],
        "details": {}, "packages": {"lorid": "0.1.0"}, "created_at": "2026-11-24T10:00:00+00:00",
        "created_by": "me@here", "seconds": 1.0, **changes,
    }  # fmt: skip


def stored(tmp_path, **changes):
    store = open_store(str(tmp_path / "store"))
    row = old_record(**changes)
    address = f"data/n/{row['version']}"
    store.write(f"{address}/record.json", json.dumps(row).encode())
    return store, address


def test_a_record_without_the_newer_fields_is_read(tmp_path):
    record = load_record(*stored(tmp_path))
    assert (record.schema_version, record.code_version) == (1, None)


def test_a_record_of_a_newer_lorid_asks_for_an_upgrade(tmp_path):
    with pytest.raises(ArtifactError, match="newer lorid"):
        load_record(*stored(tmp_path, schema_version=99, colour="blue"))


def test_records_are_listed_oldest_first_and_those_of_one_moment_by_address(tmp_path):
    moments = ("10:00:01.500", "10:00:00", "10:00:01", "10:00:00")
    for number, moment in enumerate(moments):
        inputs = {"number": number}
        store, _ = stored(
            tmp_path, inputs=inputs, fingerprint=fingerprint(inputs), version=version_of(inputs),
            created_at=f"2026-11-24T{moment}+00:00",
        )  # fmt: skip
    records = list_records(store)
    assert [record.created_at[11:-6] for record in records] == sorted(moments)
    assert records[0].address < records[1].address


@pytest.mark.parametrize(
    "changes",
    [
        {"files": [{"path": "../../etc/passwd", "size": 1, "sha256": "0" * 64}]},
        {"files": [{"path": "/etc/passwd", "size": 1, "sha256": "0" * 64}]},
        {"files": [{"path": "a", "size": 1, "sha256": "../" + "0" * 61}]},
        {"files": [{"path": "a", "size": 1, "sha256": "0" * 64}] * 2},
        {"files": [{"path": "a", "size": -1, "sha256": "0" * 64}]},
        {"parents": ["../../secret"]},
    ],
)
def test_a_record_that_leads_elsewhere_is_damaged(tmp_path, changes):
    with pytest.raises(ArtifactDrifted, match="damaged"):
        load_record(*stored(tmp_path, **changes))


def test_differences_name_what_came_and_what_went():
    record = Record.model_validate(old_record(inputs={"a": 1, "gone": "x" * 100}))
    assert differences(record, {"a": 2, "new": None}) == [
        "a: 1 -> 2",
        f"gone: {'x' * 60}... -> not an input any more",
        "new: not an input before -> None",
    ]


def artifact(kind: str, version: str, *parents: str) -> Record:
    entry = FileEntry(path="f", size=1024**2, sha256="0" * 64)
    row = old_record(kind=kind, version=version, parents=list(parents), files=[entry.model_dump()])
    return Record.model_validate(row)


def test_lineage_goes_from_data_over_the_triple_to_the_grade():
    records = [
        artifact("data", "1"),
        artifact("knowledge", "2", "data/n/1"),
        artifact("adapter", "3", "knowledge/n/2"),
        artifact("adapter", "4", "knowledge/n/2"),
        artifact("triple", "5", "adapter/n/3", "adapter/n/4"),
        artifact("evaluation", "6", "data/n/1", "triple/n/5"),
        artifact("report", "7", "evaluation/n/6", "other/run/9"),
    ]
    lines = draw_lineage(records)
    assert [line.split("  2026")[0] for line in lines] == [
        "data/n/1",
        "`-- knowledge/n/2",
        "    |-- adapter/n/3",
        "    |   `-- triple/n/5",
        "    |       `-- evaluation/n/6",
        "    |           `-- report/n/7",
        "    `-- adapter/n/4",
    ]
    assert "also from adapter/n/4" in lines[3]
    assert "also from data/n/1" in lines[4]
    assert "also from other/run/9" in lines[5]


def test_a_forged_circle_of_parents_ends():
    assert (
        draw_lineage([artifact("data", "1", "data/n/2"), artifact("data", "2", "data/n/1")]) == []
    )


def test_what_cannot_pass_is_not_tried_again():
    tries: list[int] = []

    def request() -> None:
        tries.append(1)
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        Persistence(name="x").run(request)
    assert len(tries) == 1


def test_the_first_error_is_not_tried_for_longer_than_allowed(monkeypatch):
    monkeypatch.setenv("LORID_STORE_WAIT_S", "0")
    with pytest.raises(ConnectionError):
        Persistence(name="x", has_reached=True).run(
            lambda: (_ for _ in ()).throw(ConnectionError())
        )


def test_transfers_of_more_than_50_mb_say_how_far_they_are(capsys):
    for num_mb in (50, 51):
        with transfer_shown("storing x", Amount(num_files=1, num_bytes=num_mb * 10**6)) as advance:
            for _ in range(num_mb):
                advance(10**6)
    assert re.fullmatch(r"storing x: 51/51 MB +done in \d+ s\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("endpoint", "profile", "style", "checksums"),
    [
        ("", "", None, "when_required"),
        ("http://localhost:1", "", "path", "when_required"),
        ("http://localhost:1", "s3 =\n  addressing_style = virtual", "virtual", "when_required"),
        ("", "request_checksum_calculation = when_supported", None, "when_supported"),
    ],
)
def test_what_the_settings_leave_open_is_chosen(
    tmp_path, monkeypatch, endpoint, profile, style, checksums
):
    (tmp_path / "config").write_text(f"[default]\nregion = eu-north-1\n{profile}\n")
    for name in ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    settings = connect().meta.config
    assert settings.s3.get("addressing_style") == style
    assert settings.request_checksum_calculation == checksums
    assert settings.region_name == "eu-north-1"


def test_a_link_in_a_folder_store_is_not_followed(tmp_path):
    (tmp_path / "secret").write_text("x")
    store = open_store(str(tmp_path / "store"))
    store.write("a/b", b"1")
    (tmp_path / "store/a/link").symlink_to(tmp_path / "secret")
    (tmp_path / "store/elsewhere").symlink_to(tmp_path)
    for key in ("a/link", "elsewhere/secret"):
        with pytest.raises(ArtifactError, match="leads through a link"):
            store.read(key)
        with pytest.raises(ArtifactError, match="leads through a link"):
            store.write(key, b"changed")
    assert (tmp_path / "secret").read_text() == "x"
    assert store.list("") == ["a/b"]
