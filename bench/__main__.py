"""`make bench` or `python -m bench [--readings 20_000_000]`.

Simulates a fleet, then measures each step in a process of its own, so that its peak memory is its own: a bare scan of
the segments, the transform, the same job done in other ways (bench/peers), ingest with its gate, footprint,
publication, and how far the figures are from the truth. Ratios are to a scan of the same columns in the same run.
Nothing here is a timed test: seconds depend on the machine, ratios less so.

`python -m bench --growth` measures simulation and transform from 10 million to a billion readings.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from bench.fleets import NEEDED, WORK, make, of_collectors, reduce_files, segments, transformed

if TYPE_CHECKING:
    from flows.settings import Settings

_LONG_H = 48
"""Hours of the fleet on which changes are measured."""

_COLLECTED = 2000
"""Files of collectors that are loaded."""

_FEW = 2
"""Segments that the slow peers get."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--readings", type=int, default=20_000_000)
    parser.add_argument(
        "--repeat", type=int, default=3, help="runs of short steps; the best counts"
    )
    parser.add_argument("--growth", action="store_true", help="from 10 million to a billion")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--step", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        print(json.dumps(run_step(given.step, given.readings, given.repeat)))
        return
    found = growth(given.repeat) if given.growth else whole(given.readings, given.repeat)
    if given.json:
        print(json.dumps(found, indent=2))
    elif given.growth:
        show_growth(found)
    else:
        show(found)


def whole(readings: int, repeat: int) -> dict[str, dict[str, Any]]:
    found = {}
    for name in ("simulate", *STEPS):
        print(f"{name} …", end="\r", file=sys.stderr, flush=True)
        found[name] = step(name, readings, repeat)
    shutil.rmtree(_folder(readings) / "project", ignore_errors=True)
    return found


def step(name: str, readings: int, repeat: int) -> dict[str, Any]:
    """Run one step in a process of its own."""
    words = ["--step", name, "--readings", str(readings), "--repeat", str(repeat)]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *words], check=True, stdout=subprocess.PIPE, text=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run_step(name: str, readings: int, repeat: int) -> dict[str, Any]:
    if name == "simulate":
        return _simulate(readings)
    if name == "slice":
        return _slice(readings)
    run, often = STEPS[name]
    best: dict[str, Any] = {"seconds": float("inf")}
    for _ in range(repeat if often else 1):
        start = time.perf_counter()
        own = run(_folder(readings))
        own.setdefault("seconds", time.perf_counter() - start)
        best = min(best, own, key=lambda one: one["seconds"])
    return best | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _folder(readings: int) -> Path:
    return WORK / f"{readings}"


def _simulate(readings: int) -> dict[str, Any]:
    made = make(_folder(readings), readings)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if made is None:
        return {"readings": 0, "seconds": 0.0, "peak_mb": peak}
    return {"readings": made.readings, "seconds": made.seconds, "peak_mb": peak}


def scan(folder: Path, columns: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read columns of every file, look at each number once, count the names: the least that any job must do."""
    import polars as pl
    import polars.selectors as cs

    frame = pl.scan_parquet(segments(folder)).select(columns or cs.all())
    counted = frame.select(
        (cs.numeric() | cs.datetime()).max(), cs.string().count(), rows=pl.len()
    ).collect(engine="streaming")
    return {"readings": int(counted["rows"].item())}


def transform(folder: Path) -> dict[str, Any]:
    """From files to metered energy per GPU and slot."""
    return {"readings": int(transformed(segments(folder))["readings"].sum())}


def _peer(name: str, few: bool) -> Callable[[Path], dict[str, Any]]:
    def run(folder: Path) -> dict[str, Any]:
        from importlib import import_module

        import pyarrow.parquet as pq

        paths = segments(folder)[:_FEW] if few else segments(folder)
        import_module(f"bench.peers.{name}").slots(paths)
        return {"readings": sum(pq.read_metadata(path).num_rows for path in paths)}

    return run


def ingest_small(folder: Path) -> dict[str, Any]:
    """The same of files as collectors send them."""
    return ingest(folder, of_collectors(folder, _COLLECTED))


def ingest(folder: Path, files: list[Path] | None = None) -> dict[str, Any]:
    """Stage, profile, gate and promote every file. Imports are not counted, the gate is."""
    import expectations.gate
    from flows.ingest.gpu import ingest_gpu

    expectations.gate.load_great_expectations()
    files = files or segments(folder)
    project = _project(folder, anew=True)
    start = time.perf_counter()
    outcomes = ingest_gpu(project, files)
    took = time.perf_counter() - start
    assert all(o.verdict == "loaded" for o in outcomes), outcomes
    return {"readings": sum(o.rows_loaded for o in outcomes), "seconds": took}


def footprint(folder: Path) -> dict[str, Any]:
    """From the warehouse to the figures of every run."""
    from flows.accounting.compute import compute
    from flows.ingest.grid import ingest_grid
    from flows.ingest.runs import ingest_runs
    from flows.sources.grid import layouts

    project = _project(folder)
    ingest_grid(project, [folder / "grid.csv"], layouts.Options("SIM", "", "", "", ""), "auto", "")
    ingest_runs(project, [folder / "runs.csv"], "")
    start = time.perf_counter()
    computed = compute(project)
    return {"readings": computed.readings, "seconds": time.perf_counter() - start}


def publish(folder: Path) -> dict[str, Any]:
    """Gate the figures and publish them."""
    import expectations.gate
    from flows.publication.publish import publish_candidate
    from flows.warehouse.connection import connect

    expectations.gate.load_great_expectations()
    project = _project(folder)
    start = time.perf_counter()
    done = publish_candidate(project)
    took = time.perf_counter() - start
    con = connect(done.database, read_only=True)
    [(readings,)] = con.execute(
        "SELECT sum(rows_loaded) FROM segment WHERE source_format = 'segment'"
    ).fetchall()
    con.close()
    return {"readings": int(readings), "seconds": took}


def truth(folder: Path) -> dict[str, Any]:
    """How far the figures are from the truth: of all runs together, and of the worst of them."""
    return _off(folder, _project(folder))


def truth_by_power(folder: Path) -> dict[str, Any]:
    """The same for an older fleet, whose GPUs give power alone; a quarter of the size."""
    other = folder.with_name(f"{folder.name}-power")
    make(other, int(folder.name) // 4, counters=False)
    ingest(other)
    footprint(other)
    found = _off(other, _project(other))
    shutil.rmtree(other / "project")
    return found


def incremental(folder: Path) -> dict[str, Any]:
    """What a change costs beside a computation of everything: an hour, a late file, the grid, an allocation.

    Two days of a fleet that is read every ten seconds.
    """
    import polars as pl

    from flows.accounting.compute import compute
    from flows.ingest.gpu import ingest_gpu
    from flows.ingest.grid import ingest_grid
    from flows.ingest.runs import ingest_runs
    from flows.sources.grid import layouts

    readings = int(folder.name)
    folder = folder.with_name(f"{folder.name}-long")
    make(folder, readings, hours=_LONG_H, period_s=10)
    project = _project(folder, anew=True)
    files = segments(folder)
    newest = [path for path in files if path.stem.endswith(f"-{_LONG_H - 1:05d}")]
    late = next(path for path in files if path.stem.endswith("-00002"))
    other_grid, other_runs = (folder / "project" / name for name in ("grid2.csv", "runs2.csv"))
    series = pl.read_csv(folder / "grid.csv", infer_schema=False)
    value = pl.col("intensity_g_per_kwh").cast(pl.Float64)
    middle = pl.int_range(pl.len()) == pl.len() // 2
    series.with_columns(
        intensity_g_per_kwh=pl.when(middle).then(value + 10).otherwise(value)
    ).write_csv(other_grid)
    runs = pl.read_csv(folder / "runs.csv", infer_schema=False)
    one = runs.filter(pl.col("gpu") != "all").head(1)
    sooner = pl.col("started_at").str.to_datetime(time_zone="UTC") + pl.duration(seconds=30)
    one.with_columns(started_at=sooner.dt.to_string("iso:strict")).write_csv(other_runs)

    def load_grid(path: Path) -> None:
        ingest_grid(project, [path], layouts.Options("SIM", "", "", "", ""), "auto", "")

    ingest_gpu(project, [path for path in files if path not in (*newest, late)])
    load_grid(folder / "grid.csv")
    ingest_runs(project, [folder / "runs.csv"], "")
    changes: dict[str, Callable[[], object]] = {
        "all but these": lambda: None,
        "nothing": lambda: None,
        "a new hour": lambda: ingest_gpu(project, newest),
        "a late file": lambda: ingest_gpu(project, [late]),
        "an hour of the grid": lambda: load_grid(other_grid),
        "one run's allocation": lambda: ingest_runs(project, [other_runs], ""),
    }
    found = {}
    for name, change in changes.items():
        change()
        start = time.perf_counter()
        computed = compute(project)
        found[name] = {"seconds": time.perf_counter() - start, "slots": computed.recomputed}
    kept = _figures(project)
    start = time.perf_counter()
    computed = compute(project, everything=True)
    took = time.perf_counter() - start
    assert _figures(project) == kept
    return {
        "readings": computed.readings,
        "seconds": took,
        "slots": computed.slots,
        "changes": found,
    }


def _figures(project: Settings) -> list[tuple[Any, ...]]:
    from flows.warehouse.store import store_of

    con = store_of(project).connect(read_only=True)
    try:
        return con.execute("FROM run_footprint ORDER BY ALL").fetchall()
    finally:
        con.close()


def _off(folder: Path, project: Settings) -> dict[str, Any]:
    import polars as pl

    from flows.samples.fleet import TRUTH
    from flows.warehouse.store import store_of

    con = store_of(project).connect(read_only=True)
    figures = con.execute("SELECT run_id, energy_mj FROM run_footprint WHERE kind = 'run'").pl()
    [(readings,)] = con.execute("SELECT count(*) FROM gpu_reading").fetchall()
    con.close()
    true = (
        pl.read_parquet(folder / TRUTH)
        .filter(pl.col("run_id").is_not_null())
        .group_by("run_id")
        .agg(true_mj=pl.col("energy_nj").sum() / 1e6)
    )
    both = true.join(figures, on="run_id", how="left")
    assert both["energy_mj"].null_count() == 0
    each = (both["energy_mj"] / both["true_mj"] - 1).abs()
    return {
        "readings": readings,
        "runs": both.height,
        "off": abs(both["energy_mj"].sum() / both["true_mj"].sum() - 1),
        "off_median": each.median(),
        "off_p99": each.quantile(0.99),
        "off_worst": each.max(),
    }


def _project(folder: Path, *, anew: bool = False) -> Settings:
    from flows import settings

    root = folder / "project"
    if anew:
        shutil.rmtree(root, ignore_errors=True)
    root.mkdir(exist_ok=True)
    shutil.copy(folder / "wattledger.toml", root)
    return settings.load(root)


_SMALL = "ingest, files of collectors"
STEPS: dict[str, tuple[Callable[[Path], dict[str, Any]], bool]] = {
    "scan": (scan, True),
    "scan of the needed columns": (lambda folder: scan(folder, NEEDED), True),
    "transform": (transform, True),
    "a DuckDB window query": (_peer("duckdb_window", few=False), True),
    "pandas": (_peer("pandas_columns", few=True), False),
    "sample by sample in Python": (_peer("per_sample", few=True), False),
    _SMALL: (ingest_small, False),
    "ingest, gate included": (ingest, False),
    "footprint": (footprint, False),
    "publish": (publish, False),
    "against the truth": (truth, False),
    "against the truth, by power alone": (truth_by_power, False),
    "everything again": (incremental, False),
}
"""Step -> what it does, and whether it is repeated."""

PEERS = ("a DuckDB window query", "pandas", "sample by sample in Python")
TRUTHS = ("against the truth", "against the truth, by power alone")
_PIPELINE = ("ingest, gate included", "footprint", "publish")


def show(found: dict[str, dict[str, Any]]) -> None:
    speed = {
        name: one["readings"] / one["seconds"] for name, one in found.items() if one["seconds"]
    }
    table = Table(title=f"{found['scan']['readings']:,} readings", box=None, pad_edge=False)
    for name in ("step", "seconds", "readings/s", "of the scan", "peak memory MB"):
        table.add_column(name, justify="left" if name == "step" else "right")
    for name, one in found.items():
        if name in speed and name not in (*TRUTHS, "everything again"):
            of = (
                "scan"
                if name in ("scan", "simulate", _SMALL, *_PIPELINE)
                else "scan of the needed columns"
            )
            table.add_row(
                name,
                f"{one['seconds']:.2f}",
                f"{speed[name] / 1e6:.1f} M",
                f"{speed[name] / speed[of]:.3f}",
                f"{one['peak_mb']:.0f}",
            )
    total = sum(found[name]["seconds"] for name in _PIPELINE)
    rate = found["scan"]["readings"] / total
    table.add_row(
        "pipeline", f"{total:.2f}", f"{rate / 1e6:.1f} M", f"{rate / speed['scan']:.3f}", ""
    )
    out = Console(soft_wrap=True)
    out.print(table)
    for name in PEERS:
        out.print(
            f"the transform is {speed['transform'] / speed[name]:.0f} times as fast as {name}"
        )
    again = found["everything again"]
    changed = Table(title="What a change costs", box=None, pad_edge=False)
    for name in ("after", "slots of GPUs", "seconds", "of everything"):
        changed.add_column(name, justify="left" if name == "after" else "right")
    for name, one in {**again["changes"], "everything again": again}.items():
        changed.add_row(
            name,
            f"{one['slots']:,}",
            f"{one['seconds']:.2f}",
            f"{one['seconds'] / again['seconds']:.2f}",
        )
    out.print(changed)
    for name in TRUTHS:
        one = found[name]
        out.print(
            f"{name}: {one['runs']} runs together {one['off']:.5%} off, the median run "
            f"{one['off_median']:.5%}, 99 of 100 less than {one['off_p99']:.4%}, the worst {one['off_worst']:.4%}"
        )


# Growth -------------------------------------------------------------------------------------------

_SLICE = 100_000_000


def growth(repeat: int) -> dict[str, dict[str, Any]]:
    """Simulation and transform of ever more readings, by slices that are not kept: a billion take 8 GB."""
    found = {}
    for readings in (10_000_000, 100_000_000, 1_000_000_000):
        print(f"{readings:,} readings …", end="\r", file=sys.stderr, flush=True)
        found[f"{readings}"] = step("slice", readings, repeat)
    return found


def _slice(readings: int) -> dict[str, Any]:
    """All of it in one process: what was reduced is kept, the files are not."""
    import polars as pl

    from bench.fleets import Keys
    from transforms import energy

    rule = energy.GapRule()
    folder = WORK / "slice"
    parts, keys = [], Keys()
    simulated = scanned = reduced = 0.0
    count = disk = 0
    for seed in range(max(1, readings // _SLICE)):
        made = make(folder, min(readings, _SLICE), seed=seed)
        assert made is not None
        simulated += made.seconds
        count += made.readings
        disk = max(disk, sum(path.stat().st_size for path in segments(folder)))
        start = time.perf_counter()
        scan(folder, NEEDED)
        between = time.perf_counter()
        parts.append(reduce_files(segments(folder), keys, rule))
        reduced += time.perf_counter() - between
        scanned += between - start
        shutil.rmtree(folder)
    start = time.perf_counter()
    slots = energy.compute_gpu_slots(pl.concat(parts).lazy(), rule).collect()
    reduced += time.perf_counter() - start
    assert int(slots["readings"].sum()) == count
    return {
        "readings": count,
        "simulate_s": simulated,
        "scan_s": scanned,
        "seconds": reduced,
        "slots": slots.height,
        "disk_mb": disk / 1e6,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def show_growth(found: dict[str, dict[str, Any]]) -> None:
    table = Table(title="From ten million readings to a billion", box=None, pad_edge=False)
    names = (
        "readings",
        "simulate",
        "scan",
        "transform",
        "of the scan",
        "peak memory MB",
        "disk MB",
    )
    for name in names:
        table.add_column(name, justify="right")
    for one in found.values():
        rates = (one["readings"] / one[name] for name in ("simulate_s", "scan_s", "seconds"))
        table.add_row(
            f"{one['readings']:,}",
            *(f"{rate / 1e6:.1f} M/s" for rate in rates),
            f"{one['scan_s'] / one['seconds']:.3f}",
            f"{one['peak_mb']:.0f}",
            f"{one['disk_mb']:.0f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
