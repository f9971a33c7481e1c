"""Fleets for the bench, made once and used again, and the transform from their files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import polars as pl
import pyarrow.parquet as pq

from flows.samples.fleet import SimulatedFleet, simulate_fleet
from flows.samples.fleet_plan import Fleet
from transforms import energy
from transforms.gaps import GapRule

WORK = Path(__file__).parent / "fleet"
HOURS = 6
NEEDED = ("gpu_uuid", "ts", "power_mw", "energy_mj", "power_source")
"""The columns that the transform reads."""

_BATCH = 1 << 20
_THREADS = 3


def make(
    folder: Path,
    readings: int,
    *,
    counters: bool = True,
    seed: int = 1,
    hours: int = HOURS,
    period_s: int = 1,
) -> SimulatedFleet | None:
    """A simulated fleet of about so many readings; None if it is there already."""
    if (folder / "made").exists():
        return None
    shutil.rmtree(folder, ignore_errors=True)
    gpus = max(8, round(readings * period_s / (hours * 3600) / 8) * 8)
    made = simulate_fleet(Fleet(gpus, hours, seed, period_s, counters), folder)
    (folder / "made").touch()
    return made


def segments(folder: Path) -> list[Path]:
    return sorted((folder / "readings").glob("*.parquet"))


def of_collectors(folder: Path, count: int) -> list[Path]:
    """Readings of a fleet as its collectors send them: so many files, each of ten minutes of one host."""
    target = folder / "of-collectors"
    if not (target / "made").exists():
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        made = 0
        for path in segments(folder):
            readings = pl.read_parquet(path).with_columns(window=pl.col("ts").dt.truncate("10m"))
            by = readings.partition_by("host", "window", maintain_order=True)
            for part in by[: count - made]:
                part.drop("window").write_parquet(target / f"{made:06}.parquet")
                made += 1
        (target / "made").touch()
    return sorted(target.glob("*.parquet"))


class Keys:
    """A number for every GPU, whichever file it comes from."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._lock = Lock()

    def of(self, uuids: list[str]) -> pl.Series:
        with self._lock:
            return pl.Series([self._known.setdefault(u, len(self._known)) for u in uuids])


def read(path: Path) -> Iterator[tuple[pl.DataFrame, list[str]]]:
    """The readings of a segment, a million at a time: `READING_COLUMNS`, and the GPUs that the keys number."""
    file = pq.ParquetFile(path, read_dictionary=["gpu_uuid", "power_source"])
    columns = [name for name in NEEDED if name in file.schema_arrow.names]
    for batch in file.iter_batches(_BATCH, columns=columns, use_threads=False):
        gpus, sources = batch["gpu_uuid"], batch["power_source"]
        averaged = {source == "average_1s" for source in sources.dictionary.to_pylist()}
        assert len(averaged) == 1, "simulated GPUs report power in one way"
        frame = pl.from_arrow(batch.drop_columns(["gpu_uuid", "power_source"]))
        assert isinstance(frame, pl.DataFrame)
        readings = frame.with_columns(
            pl.Series("gpu_key", gpus.indices),
            pl.lit(averaged.pop()).alias("averaged"),
            *([] if "energy_mj" in columns else [pl.lit(None, pl.Int64).alias("energy_mj")]),
        )
        yield readings, gpus.dictionary.to_pylist()


def reduce_files(paths: Sequence[Path], keys: Keys, rule: GapRule) -> pl.DataFrame:
    """Files side by side, each a million readings at a time."""

    def one(path: Path) -> list[pl.DataFrame]:
        return [
            energy.reduce_readings(frame, rule).with_columns(
                pl.lit(keys.of(gpus)).gather("gpu_key").alias("gpu_key")
            )
            for frame, gpus in read(path)
        ]

    with ThreadPoolExecutor(_THREADS) as pool:
        return pl.concat([part for parts in pool.map(one, paths) for part in parts])


def transformed(paths: Sequence[Path]) -> pl.DataFrame:
    """From files to metered energy per GPU and slot."""
    rule = GapRule()
    return energy.compute_gpu_slots(reduce_files(paths, Keys(), rule).lazy(), rule).collect()
