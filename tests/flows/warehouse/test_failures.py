"""A database that fails is said to be what it is: busy, damaged, full, forbidden, newer, out of memory."""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from flows.cli import main
from flows.errors import (
    DiskFailed,
    OutOfMemory,
    WarehouseBusy,
    WarehouseDamaged,
    WarehouseError,
    WarehouseForbidden,
    WarehouseNewer,
)
from flows.settings import Settings
from flows.warehouse import connection
from flows.warehouse.connection import connect
from flows.warehouse.failures import explain_failure
from flows.warehouse.store import FileStore, attach_read_only, explain_disk_errors, store_of

NOBODY = 65534


def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object
) -> tuple[int, str]:
    """Exit code and standard error of the command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["wattledger", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code, capsys.readouterr().err


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Another process has the file open for writing."""
    script = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        yield
    finally:
        holder.communicate()


def with_storage_version(path: Path, version: int) -> None:
    """Write another storage version into a file's header, with the checksum that fits."""
    data = bytearray(path.read_bytes())
    data[12:20] = struct.pack("<Q", version)
    checksum = 5381
    for (word,) in struct.iter_unpack("<Q", data[8:4096]):
        checksum ^= word * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    data[:8] = struct.pack("<Q", checksum)
    path.write_bytes(data)


def corrupt(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:4160] = bytes(64)
    path.write_bytes(data)


def make_newer(path: Path) -> None:
    with duckdb.connect(str(path)) as con:
        con.execute("INSERT INTO schema_migration VALUES (9999, '9999_later', 'x', now())")


def make_sqlite(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as con:
        con.execute("CREATE TABLE run (id INTEGER)")


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("change", "kind", "sentence"),
    [
        (corrupt, WarehouseDamaged, "it is damaged: IO Error: Corrupt database file"),
        (lambda p: p.write_bytes(p.read_bytes()[:20_000]), WarehouseDamaged, "it is damaged"),
        (lambda p: p.write_bytes(b"not a lock, nor a block" * 999), WarehouseDamaged, "it is not a DuckDB file"),
        (lambda p: p.write_bytes(b""), WarehouseDamaged, "it is not a DuckDB file"),
        (make_sqlite, WarehouseDamaged, "it is not a DuckDB file"),
        (lambda p: with_storage_version(p, 999), WarehouseNewer, "a newer DuckDB wrote it (storage version 999)"),
        (make_newer, WarehouseNewer, "it was written by a newer Wattledger (migration 9999"),
        (make_folder, WarehouseError, "it is a folder"),
        (make_pipe, WarehouseError, "not a regular file"),
    ],
    ids=["corrupt", "cut", "text", "empty", "sqlite", "newer DuckDB", "newer schema", "folder", "pipe"],
)  # fmt: skip
def test_what_is_wrong_with_a_warehouse_is_said_at_once(
    change, kind, sentence, project: Settings, monkeypatch, capsys
) -> None:
    """Also in a folder called `lock`, which no message may be judged by, and by services that wait."""
    root = project.root.rename(project.root.with_name("could not set lock on file"))
    path = root / "warehouse.duckdb"
    change(path)
    before = path.read_bytes() if path.is_file() else b""
    code, said = command(monkeypatch, capsys, "footprint", "--project", root)
    assert (code, sentence in said) == (kind.exit_code, True), said
    assert code == 5
    assert str(path) in said
    assert (path.read_bytes() if path.is_file() else b"") == before
    if kind is not WarehouseNewer or "DuckDB" in sentence:
        began = time.monotonic()
        with pytest.raises(kind):
            connect(path, wait_s=900)
        assert time.monotonic() - began < 5


def test_a_busy_warehouse_is_waited_for_and_then_said(
    project: Settings, monkeypatch, capsys
) -> None:
    path = project.root / "warehouse.duckdb"
    with held(path):
        code, said = command(monkeypatch, capsys, "footprint", "--project", project.root)
        assert code == 4
        assert "another process is writing it (process " in said
        with pytest.raises(WarehouseBusy, match="another process is writing it"):
            connect(path, wait_s=0.2)
        with pytest.raises(WarehouseBusy):
            attach_read_only(store=FileStore(path))
    connect(path, wait_s=0.2).close()


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    """A limit on the size of files stands in for it: the kernel refuses to write further."""
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from flows.errors import WattledgerError\n"
        "from flows.warehouse.store import FileStore, explain_disk_errors\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))\n"
        "store = FileStore(Path(sys.argv[1]))\n"
        "try:\n"
        "    with explain_disk_errors(store):\n"
        "        store.connect().execute('CREATE TABLE t AS SELECT random() FROM range(1_000_000)')\n"
        "except WattledgerError as error:\n"
        "    print(type(error).__name__, error); sys.exit(error.exit_code)\n"
    )
    path = tmp_path / "w.duckdb"
    done = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout[:10]) == (5, "DiskFailed"), done.stdout + done.stderr
    assert f"{path}: cannot write: File too large. Free some space" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
@pytest.mark.parametrize("file_mode", [0o600, 0o444])
def test_a_file_that_this_user_may_not_write_is_said(
    file_mode: int, project: Settings, monkeypatch, capsys
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(shutil.copytree(project.root, Path(folder) / "project", symlinks=True))
        command(
            monkeypatch, capsys, "footprint", "--project", root
        )  # What it imports, root can read.
        Path(folder).chmod(0o755)
        (root / ".wattledger").chmod(0o777)
        (root / "warehouse.duckdb").chmod(file_mode)
        root.chmod(0o777)
        os.seteuid(NOBODY)
        try:
            code, said = command(monkeypatch, capsys, "footprint", "--project", root)
        finally:
            os.seteuid(0)
    assert (code, "this user may not: Permission denied" in said) == (5, True), said
    assert "Fix the permissions" in said


def test_too_little_memory_is_no_damage(loaded: Settings, monkeypatch, capsys) -> None:
    monkeypatch.setitem(connection._CONFIG, "memory_limit", "2MB")
    code, said = command(monkeypatch, capsys, "footprint", "--project", loaded.root)
    assert (code, "not enough memory" in said) == (8, True), said
    assert "Figures were neither confirmed nor changed" in said


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (duckdb.IOException('IO Error: Could not set lock on file "x": held (PID 7)'), WarehouseBusy),
        (duckdb.IOException('IO Error: Cannot open file "Could not set lock on file": Permission denied'), WarehouseForbidden),
        (duckdb.IOException('IO Error: Cannot open file "w": Read-only file system'), WarehouseForbidden),
        (duckdb.IOException('IO Error: Could not write file "w": No space left on device'), DiskFailed),
        (duckdb.FatalException('FATAL Error: Failed to create checkpoint because of error: Could not write file "w": No space left on device'), DiskFailed),
        (duckdb.FatalException('FATAL Error: Failed: database has been invalidated.\nOriginal error: "IO Error: Could not write file "w": Disk quota exceeded"'), DiskFailed),
        (duckdb.IOException('IO Error: Could not read from file "w": Input/output error'), DiskFailed),
        (duckdb.TransactionException('TransactionContext Error: Failed to commit: Out of Memory Error: failed to allocate'), OutOfMemory),
        (duckdb.SerializationException("Serialization Error: Failed to deserialize: field id mismatch"), WarehouseDamaged),
        (duckdb.InternalException("INTERNAL Error: index out of range"), WarehouseError),
        (MemoryError(), OutOfMemory),
        (OSError(28, "No space left on device"), DiskFailed),
    ],
)  # fmt: skip
def test_errors_are_told_apart(error: Exception, kind: type[Exception]) -> None:
    assert type(explain_failure(error, "w")) is kind


@pytest.mark.parametrize(
    "error",
    [
        duckdb.ParserException("Parser Error: syntax error at or near: No space left on device"),
        duckdb.BinderException("Binder Error: Could not set lock on file"),
        duckdb.ConversionException("Conversion Error: 'Corrupt'"),
        FileNotFoundError(2, "No such file or directory"),
        ValueError("block"),
    ],
)
def test_mistakes_in_statements_are_no_failures(error: Exception, project: Settings) -> None:
    assert explain_failure(error, "w") is None
    with pytest.raises(type(error)), explain_disk_errors(store_of(project)):
        raise error
