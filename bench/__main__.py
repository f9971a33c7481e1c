"""`make bench` or `python -m bench [--readings 20_000_000]`.

Makes a synthetic fleet, then measures in this order, each step in a process of its own so that its
peak memory is its own: a bare scan of the Parquet files, the transform on the same files, ingest
(gate included), footprint from the warehouse, publish. Prints readings/s, the ratio to the scan,
and peak memory. Nothing here is a timed test: figures depend on the machine, ratios less so.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from flows.settings import Settings

WORK = Path(__file__).parent / "fleet"
_HOSTS_PER_FILE = 64
_PERIOD_S = 1
_SECONDS = 6 * 3600
_START = datetime(2024, 5, 1, 12, tzinfo=UTC)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--readings", type=int, default=20_000_000)
    parser.add_argument(
        "--repeat", type=int, default=3, help="runs of scan and transform; best counts"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--step", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    folder = WORK / f"{given.readings}"
    if given.step:
        print(json.dumps(run_step(given.step, folder, given.repeat)))
        return
    if not (folder / "made").exists():
        step("make", given.readings, given.repeat)
    shutil.rmtree(folder / "project", ignore_errors=True)
    names = ("scan", "transform", "ingest", "footprint", "publish")
    results = {name: step(name, given.readings, given.repeat) for name in names}
    shutil.rmtree(folder / "project", ignore_errors=True)
    if given.json:
        print(json.dumps(results, indent=2))
        return
    scan = results["scan"]["readings"] / results["scan"]["seconds"]
    table = Table(title=f"{results['scan']['readings']:,} readings", box=None, pad_edge=False)
    for name in ("step", "seconds", "readings/s", "ratio to scan", "peak memory MB"):
        table.add_column(name, justify="left" if name == "step" else "right")
    for name, found in results.items():
        speed = found["readings"] / found["seconds"]
        table.add_row(
            name,
            f"{found['seconds']:.2f}",
            f"{speed / 1e6:.1f} M",
            f"{speed / scan:.3f}",
            f"{found['peak_mb']:.0f}",
        )
    total = sum(results[n]["seconds"] for n in ("ingest", "footprint", "publish"))
    speed = results["scan"]["readings"] / total
    table.add_row(
        "full pipeline", f"{total:.2f}", f"{speed / 1e6:.1f} M", f"{speed / scan:.3f}", ""
    )
    Console().print(table)


def step(name: str, readings: int, repeat: int) -> dict[str, float]:
    """Run one step in a process of its own."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "bench",
            "--step",
            name,
            "--readings",
            str(readings),
            "--repeat",
            str(repeat),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run_step(name: str, folder: Path, repeat: int) -> dict[str, float]:
    steps = {
        "make": make,
        "scan": scan,
        "transform": transform,
        "ingest": ingest,
        "footprint": footprint,
        "publish": publish,
    }
    warm = {"scan": repeat, "transform": repeat}.get(name, 1)
    best = float("inf")
    readings = 0
    for _ in range(warm):
        start = time.perf_counter()
        own = steps[name](folder)
        took = time.perf_counter() - start
        readings, seconds = own if isinstance(own, tuple) else (own, took)
        best = min(best, seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"readings": readings, "seconds": best, "peak_mb": peak}


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


def make(folder: Path) -> int:
    """A fleet of 8-GPU hosts for six hours, in files of up to 64 hosts; the same every time."""
    import polars as pl

    from flows.sources import segments
    from flows.sources.simulator import Work, host_readings

    folder.mkdir(parents=True, exist_ok=True)
    wanted = int(folder.name)
    per_host = 8 * _SECONDS // _PERIOD_S
    hosts = max(1, round(wanted / per_host))
    for first in range(0, hosts, _HOSTS_PER_FILE):
        parts = []
        for number in range(first, min(first + _HOSTS_PER_FILE, hosts)):
            seed = number % 16  # sixteen different hosts are enough variety
            made = host_readings(
                f"node{number:05d}",
                gpus=8,
                start=_START,
                seconds=_SECONDS,
                work=[Work(range(8), 600 + 60 * seed, _SECONDS - 900)],
                seed=seed,
                counter=seed % 2 == 0,
            )
            parts.append(made)
        fleet = pl.concat(parts).sort("gpu_uuid", "ts")
        segments.write(fleet, folder / f"fleet{first:05d}.parquet", sample=True)
    (folder / "made").touch()
    return wanted


def scan(folder: Path) -> int:
    """Read every column of every file and count its values: the least that any job must do."""
    import polars as pl

    frame = pl.scan_parquet(files(folder))
    counted = frame.select(pl.all().count(), rows=pl.len()).collect(engine="streaming")
    return int(counted["rows"].item())


def transform(folder: Path) -> int:
    """From the same files to metered energy per GPU and slot, as the flow computes it."""
    import polars as pl

    from transforms import energy

    rule = energy.GapRule()
    partials = [
        energy.partial_slots(
            pl.scan_parquet(file).select(
                pl.col("gpu_uuid").alias("gpu_key"),
                "ts",
                "power_mw",
                "energy_mj",
                averaged=pl.col("power_source") == "average_1s",
            ),
            rule,
        ).collect(engine="streaming")
        for file in files(folder)
    ]
    slots = energy.gpu_slots(pl.concat(partials).lazy(), rule).collect()
    return int(slots["readings"].sum())


_SETTINGS = """
[[site]]
name = "bench"
zone = "XX"
pue = 1.2
wue_l_per_kwh = 0.5

[zones.XX]
fallback_intensity_g_per_kwh = 300
"""


def _project(folder: Path) -> Settings:
    from flows import settings

    root = folder / "project"
    root.mkdir(exist_ok=True)
    (root / "wattledger.toml").write_text(_SETTINGS)
    return settings.load(root)


def ingest(folder: Path) -> tuple[int, float]:
    """Stage, profile, gate and promote every file. Imports are not counted, the gate is."""
    import expectations.gate
    from flows.ingest_gpu import ingest_gpu

    expectations.gate._great_expectations()
    project = _project(folder)
    start = time.perf_counter()
    outcomes = ingest_gpu(project, files(folder))
    took = time.perf_counter() - start
    assert all(o.verdict == "loaded" for o in outcomes), outcomes
    return sum(o.rows_loaded for o in outcomes), took


def footprint(folder: Path) -> tuple[int, float]:
    """From the warehouse to run footprints, one run for every host."""
    from flows.footprint import compute
    from flows.ingest_runs import ingest_runs
    from flows.warehouse import connect

    project = _project(folder)
    con = connect(project.warehouse, read_only=True)
    hosts = [r[0] for r in con.execute("SELECT DISTINCT host FROM gpu ORDER BY 1").fetchall()]
    con.close()
    table = project.root / "runs.csv"
    lines = [f"run-{h},2024-05-01T12:10:30Z,2024-05-01T17:45:10Z,{h},all" for h in hosts]
    table.write_text("run_id,started_at,ended_at,host,gpu\n" + "\n".join(lines) + "\n")
    ingest_runs(project, [table])
    start = time.perf_counter()
    computed = compute(project)
    return computed.readings, time.perf_counter() - start


def publish(folder: Path) -> tuple[int, float]:
    """Gate the candidate and publish it."""
    import expectations.gate
    from flows.publish import publish as run
    from flows.warehouse import connect

    expectations.gate._great_expectations()
    project = _project(folder)
    start = time.perf_counter()
    done = run(project)
    took = time.perf_counter() - start
    con = connect(done.database, read_only=True)
    [(readings,)] = con.execute(
        "SELECT sum(rows_loaded) FROM segment WHERE source_format = 'segment'"
    ).fetchall()
    con.close()
    return int(readings), took


if __name__ == "__main__":
    main()
