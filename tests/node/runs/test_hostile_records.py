"""Any user of a node can write into `runs`: whatever it is, the collector goes on, and writes where it should."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import run_alone
from tests.node.conftest import HOST, Node
from tests.node.runs.conftest import GPUS
from wattledger.files import read_plain, write_file
from wattledger.runs.active import ActiveRuns
from wattledger.runs.environment import begin_record
from wattledger.runs.records import MAX_BYTES, Record, load_record, parse_record
from wattledger.spool.spool import Spool

MALLORY = 54_321
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can write as another user")


def fields(**given: Any) -> dict[str, Any]:
    """A sound record of a process that is gone, with some fields of a stranger's choice."""
    record = begin_record({}, GPUS, HOST)
    record.pid, record.pid_started = 999_999, "gone"
    return {**json.loads(record.as_text()), **given}


def text(**given: Any) -> bytes:
    return json.dumps(fields(**given)).encode()


DEEP = b"[" * 100_000
HOSTILE: dict[str, bytes] = {
    "deep": DEEP,
    "deep in a field": text(labels="@").replace(b'"@"', b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "huge": b" " * (MAX_BYTES + 1),
    "no text": b"\xff\xfe\x00",
    "run id is a list": text(run_id=[1, 2]),
    "run id is a number": text(run_id=7),
    "host is null": text(host=None),
    "labels is a list": text(labels=["a"]),
    "labels of numbers": text(labels={"a": 1}),
    "gpus is a text": text(gpus="all"),
    "a gpu is a number": text(gpus=[1]),
    "a gpu with more fields": text(gpus=[{"gpu_uuid": "g", "x": 1}]),
    "ranks of texts": text(ranks={"local_rank": "../.."}),
    "pid is a path": text(pid="../../etc/passwd"),
    "pid is negative": text(pid=-1),
    "pid is huge": text(pid=10**30),
    "pid is true": text(pid=True),
    "an integer of 5,000 digits": text(pid=7).replace(b'"pid": 7', b'"pid": ' + b"9" * 5000),
    "year 10^9": text(started_at="1000000000-01-01T00:00:00Z"),
    "a time without zone": text(started_at="2024-05-01T12:00:00"),
    "end is a number": text(ended_at=5),
    "escape characters": text(run_id="a\x1b[2Jb"),
    "a newline": text(owner="a\nroot"),
    "half a character": text(name="\ud800"),
    "another format": text(wattledger_run_record=99),
    "unknown field": text(command="rm -rf /"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_record_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(HOSTILE[name])
    with pytest.raises((ValueError, OSError)) as refused:
        load_record(path)
    assert len(str(refused.value)) < 400


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    ),
    st.sampled_from(sorted(fields())),
)
def test_any_value_in_any_field_is_a_record_or_a_value_error(value: Any, name: str) -> None:
    data = json.dumps(fields(**{name: value})).encode()
    try:
        record = parse_record(data)
    except ValueError:
        return
    assert isinstance(record.run_id, str)
    assert isinstance(record.pid, int)
    # What was let in can be written, and is the same when it is read again.
    assert parse_record(record.as_text().encode()) == record


@pytest.mark.parametrize(
    "record_id", ["../../evil", "/etc/evil", ".", "..", "", "a/b", "a\0b", "-rf"]
)
def test_no_path_is_built_from_a_record_id(record_id: str, tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    record = begin_record({}, GPUS, HOST)
    record.record_id = record_id
    with pytest.raises(ValueError, match="no name of a file"):
        record.save(inner)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def lay_traps(folder: Path, outside: Path) -> None:
    """Everything that can have the name of a record and is none."""
    for number, data in enumerate(HOSTILE.values()):
        (folder / f"hostile{number}.json").write_bytes(data)
    os.mkfifo(folder / "pipe.json")
    (folder / "folder.json").mkdir()
    (folder / "link.json").symlink_to(outside)
    (folder / "environ.json").symlink_to("/proc/self/environ")
    (folder / "zero.json").symlink_to("/dev/zero")
    (folder / "loop.json").symlink_to("loop.json")
    (folder / "line\nbreak\x1b[2J.json").write_bytes(b"{}")
    (folder / os.fsdecode(b"not\xffutf8.json")).write_bytes(b"{}")
    # An end would be written for this run, under the name that its id gives.
    aim = os.path.relpath(outside.with_suffix(""), folder)
    (folder / "aim.json").write_bytes(text(record_id=aim))


def test_the_collector_survives_whatever_users_write(node: Node) -> None:
    outside = node.folder / "precious.json"
    outside.write_text(json.dumps(fields(record_id="precious")))
    before = outside.read_bytes()
    node.spool.create()
    own = node.spool.make_own_runs()
    for folder in (own, node.spool.runs):
        lay_traps(folder, outside)
    (node.spool.runs / "777").symlink_to(node.folder)
    (node.spool.runs / "778").write_text("a file")
    honest = begin_record({}, GPUS, HOST)
    honest.pid, honest.pid_started = 999_999, "gone"
    path = honest.save(own)
    collector = node.collect()
    node.until(lambda: load_record(path).ended_by == "lost")
    node.until(lambda: load_record(own / "aim.json").ended_by == "lost")
    node.more(collector)
    before_stop = time.monotonic()
    stderr = node.stop(collector, signal.SIGTERM)
    assert time.monotonic() - before_stop < 10
    assert collector.returncode == 0, stderr
    assert "Traceback" not in stderr
    assert outside.read_bytes() == before
    assert load_record(own / "aim.json").ended_by == "lost"
    seen = [e for events in node.meta("events") for e in events if e["event"] == "record_seen"]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert {"sha256": digest, "owner_uid": os.geteuid()} in [json.loads(e["detail"]) for e in seen]
    assert sorted(p.name for p in node.folder.glob("*.json")) == ["precious.json"]
    told = [e for events in node.meta("events") for e in events if e["event"] == "record_refused"]
    details = [event["detail"] for event in told]
    assert len(details) == len(set(details)) > len(HOSTILE)
    assert any("pipe.json is left alone: a pipe" in one or "a pipe" in one for one in details)
    assert not any("\n" in one or "\x1b" in one for one in details)


def test_a_beat_does_bounded_work_however_many_files_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wattledger.runs.active._ENTRIES", 50)
    monkeypatch.setattr("wattledger.runs.active._MOST_FILES", 300)
    spool = Spool(tmp_path, HOST)
    spool.create()
    flooded, quiet = spool.runs / "1000", spool.runs / "1001"
    for folder in (flooded, quiet):
        folder.mkdir()
    for number in range(1000):
        (flooded / f"{number}.json").write_bytes(b"{}")
    honest = begin_record({}, GPUS, HOST)
    honest.pid, honest.pid_started = os.getpid(), "gone"
    honest.save(quiet)
    opened: list[object] = []
    read = os.open
    monkeypatch.setattr(os, "open", lambda *a, **k: (opened.append(a), read(*a, **k))[1])
    notes: list[str] = []
    active = ActiveRuns(spool.runs, HOST, note=notes.append)
    for _ in range(2):
        opened.clear()
        active.read_changes()
        assert len(opened) < 120
    assert active.run_ids() == [honest.run_id]
    for _ in range(10):
        active.read_changes()
    assert any("more than 300 files" in note for note in notes)


def test_files_beside_the_folders_hide_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wattledger.runs.active._ENTRIES_OF_ALL", 40)
    monkeypatch.setattr("wattledger.runs.active._MOST_FILES", 30)
    spool = Spool(tmp_path, HOST)
    spool.create()
    for number in range(300):
        (spool.runs / f"{number}.json").write_bytes(b"{}")
    for number in range(1000, 1300):
        (spool.runs / f"{number}").touch()
    honest = begin_record({}, GPUS, HOST)
    honest.save(spool.make_own_runs())
    active = ActiveRuns(spool.runs, HOST)
    beats = 0
    while not active.any():
        active.read_changes()
        beats += 1
        assert beats < 30


@pytest.mark.parametrize("moment", [1e18, -1e18, 4e9])
def test_no_time_of_a_file_ends_the_collector_or_makes_a_run_of_the_future(
    moment: float, tmp_path: Path
) -> None:
    record = begin_record({}, GPUS, HOST)
    record.pid, record.pid_started, record.pid_namespace = 1, "elsewhere", "pid:[1]"
    path = record.save(tmp_path)
    try:
        os.utime(path, (moment, moment))
    except OverflowError:
        os.utime(path, ns=(2**62, 2**62))
    active = ActiveRuns(tmp_path, HOST)
    active.read_changes()
    active.end_lost_runs()
    assert all(seen[:4] < "2100" for seen in active.alive.values())


@needs_root
def test_the_folders_of_a_spool_keep_users_apart(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for parent in list(tmp_path.parents)[:3]:
        parent.chmod(0o755)
    spool = Spool(tmp_path / "spool", HOST)
    spool.create()
    assert spool.lock()
    spool.write_status({"state": "collecting"})
    honest = begin_record({}, GPUS, HOST).save(spool.make_own_runs())
    assert run_alone(_attack, str(spool.root), str(honest)) == 0
    # A name that was taken first: ours is another.
    taken = spool.runs / "4242"
    taken.mkdir()
    os.chown(taken, MALLORY, MALLORY)
    assert run_alone(_take_another_name, str(spool.root)) == 0


def _take_another_name(root: str) -> int:
    os.seteuid(4242)
    return 0 if Spool(Path(root), HOST).make_own_runs().name.startswith("4242-") else 1


def _attack(root: str, record: str) -> int:
    """As another user, in a process of its own: everything must fail but the last."""
    spool, honest = Spool(Path(root), HOST), Path(record)
    os.setgid(MALLORY)
    os.setuid(MALLORY)
    attempts = [
        lambda: honest.write_text("{}"),
        lambda: honest.unlink(),
        lambda: honest.parent.rename(spool.runs / "gone"),
        lambda: spool.runs.rename(spool.folder / "gone"),
        lambda: (spool.folder / "forged.parquet").write_text(""),
        lambda: (spool.journals / "forged.sqlite").write_text(""),
        lambda: os.open(spool.folder / "collector.lock", os.O_RDONLY),
        lambda: (spool.folder / "collector.json").write_text("{}"),
        lambda: (honest.parent / "mine.json").write_text("{}"),
    ]
    for number, attempt in enumerate(attempts, 1):
        try:
            attempt()
        except OSError:
            continue
        return number
    Record.save(begin_record({}, GPUS, HOST), spool.make_own_runs())
    # Nor does whoever may not open the lock take a dead collector for one that runs.
    return 100 if spool.read_running_status() is not None else 0


def test_a_host_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / HOST).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="a link, not a folder"):
        Spool(tmp_path, HOST).create()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    for name in ("../up", "a/b", "", ".", ".."):
        with pytest.raises(OSError, match="not the name of a host"):
            Spool(tmp_path, name)


def test_files_are_written_through_no_link_and_read_from_none(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "x.json").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="a link"):
        read_plain(tmp_path / "x.json", 100)
    write_file(tmp_path / "x.json", "new")
    assert (tmp_path / "target").read_text() == "precious"
    assert read_plain(tmp_path / "x.json", 100) == b"new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["target", "x.json"]
    with pytest.raises(OSError, match="more than 2 bytes"):
        read_plain(tmp_path / "x.json", 2)
    with pytest.raises(OSError, match="a device"):
        read_plain("/dev/zero", 2)
