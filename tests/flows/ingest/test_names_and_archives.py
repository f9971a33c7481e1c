"""Files with names and contents that nobody expects: a sentence each, and the others load."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from flows.files import name_for_people
from flows.ingest.gpu import ingest_gpu
from flows.ingest.grid import ingest_grid
from flows.ingest.runs import ingest_runs
from flows.settings import Settings
from flows.sources.gpu.nvidia_smi import Options
from tests.conftest import ask, wattledger

HEADER = b"timestamp, index, uuid, name, power.draw [W]\n"
OPTIONS = Options(tz="UTC", host="node7")


def log(gpu: str, rows: int = 120) -> bytes:
    lines = [
        f"2026/02/03 08:{i // 60:02d}:{i % 60:02d}.000, 0, {gpu}, NVIDIA A100-SXM4-40GB, 300.00 W\n"
        for i in range(rows)
    ]
    return HEADER + "".join(lines).encode()


NAMES = [
    b"n" * 246 + b".csv",
    b"line\nbreak.csv",
    b"br[a]ck?et*.csv",
    b"quote'\"; DROP TABLE gpu.csv",
    "grün 水.csv".encode(),
    b"-rf.csv",
]


def test_any_name_is_only_a_name(project: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        (folder / os.fsdecode(name)).write_bytes(log(f"GPU-{number}"))
    not_utf8 = folder / os.fsdecode(b"caf\xe9.csv")
    not_utf8.write_bytes(log("GPU-latin"))
    outcomes = ingest_gpu(project, [folder], OPTIONS)
    verdicts = {outcome.path: outcome.verdict for outcome in outcomes}
    assert verdicts.pop(name_for_people(not_utf8)) == "quarantined"
    assert len(verdicts) == len(NAMES)
    assert set(verdicts.values()) == {"loaded"}
    # Refused twice, each kind by its command, and kept under a name that any system takes.
    for outcome in [*ingest_grid(project, [not_utf8]), *ingest_runs(project, [not_utf8])]:
        assert outcome.verdict == "quarantined"
        assert "not UTF-8" in outcome.reason
    long = folder / ("x" * 250)
    long.write_bytes(b"nothing that anybody can read\n")
    assert ingest_gpu(project, [long], OPTIONS)[0].verdict == "quarantined"
    assert all(len(path.name.encode()) < 255 for path in project.quarantine.iterdir())


def test_an_ascii_terminal_gets_sentences(project: Settings) -> None:
    (project.root / "grün\n水.csv").write_bytes(log("GPU-0"))
    (project.root / os.fsdecode(b"caf\xe9.csv")).write_bytes(log("GPU-1"))
    done = wattledger(
        "ingest", "gpu", "--project", project.root, "--tz", "UTC", "--host", "h",
        *sorted(project.root.glob("*.csv")), env={"LC_ALL": "C", "PYTHONIOENCODING": "ascii:backslashreplace"},
    )  # fmt: skip
    assert done.returncode == 2
    assert "not UTF-8" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("fill", [b"0", b"0\n", b"[", b"<a>"], ids=["line", "lines", "json", "xml"])
def test_a_bomb_is_refused_by_every_reader(project: Settings, fill: bytes) -> None:
    text = HEADER + fill * (60_000_000 // len(fill))
    for ending in (".csv.gz", ".json.gz", ".xml.gz"):
        path = project.root / f"bomb{ending}"
        path.write_bytes(gzip.compress(text, 6))
        outcomes = [
            *ingest_gpu(project, [path], OPTIONS),
            *ingest_grid(project, [path]),
            *ingest_runs(project, [path]),
        ]
        assert {outcome.verdict for outcome in outcomes} == {"quarantined"}
        assert all("unpacks to more than 100 times" in outcome.reason for outcome in outcomes)
    assert not list((project.work / "staging").glob("*"))


def test_bytes_that_are_no_text_cost_their_rows_and_no_more(project: Settings) -> None:
    """A machine that lost power leaves a block of NUL bytes in the midst of its log."""
    text = log("GPU-0", 1000)
    middle = text.index(b"08:08:20")
    path = project.root / "power_cut.csv"
    path.write_bytes(text[:middle] + b"\0" * 4096 + text[middle:])
    [outcome] = ingest_gpu(project, [path], OPTIONS)
    assert (outcome.verdict, outcome.rows_read, outcome.rows_loaded) == ("loaded", 1000, 999)
    assert outcome.rows_quarantined == 1
    [row] = ask(project, "SELECT row_no, reason FROM quarantined_row")
    assert row["row_no"] == 502
    assert "not text" in row["reason"]


def test_a_pipe_and_a_file_that_nobody_may_read_stop_nothing(
    project: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, secret, good = (project.root / name for name in ("pipe.csv", "secret.csv", "good.csv"))
    os.mkfifo(pipe)
    secret.write_bytes(log("GPU-0"))
    good.write_bytes(log("GPU-1"))
    opened = os.open

    def refuse(path: object, *given: object, **options: object) -> int:
        if path == secret:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)  # Whoever runs the tests as root may read everything.
    outcomes = ingest_gpu(project, [pipe, secret, good], OPTIONS)
    assert [outcome.verdict for outcome in outcomes] == ["quarantined", "quarantined", "loaded"]
    assert "not a regular file" in outcomes[0].reason
    assert "Permission denied" in outcomes[1].reason
    for ingest in (ingest_grid, ingest_runs):
        assert [o.verdict for o in ingest(project, [pipe, secret])] == ["quarantined"] * 2
