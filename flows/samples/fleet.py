"""`wattledger simulate`: a fleet that never was, with the energy that it truly took.

Makes a project: segments of readings, a run table, a grid series, settings, and `truth.parquet`. The
same arguments give the same files. What is modelled, and what truth means: docs/simulator.md.
"""

from __future__ import annotations

import csv
import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from flows.errors import UsageError
from flows.settings import FILE_NAME
from transforms.constants import PPM
from wattledger.spool.spool import SAMPLE_KEY

START = datetime(2026, 3, 2, tzinfo=UTC)
TRUTH = "truth.parquet"

_S = 1_000_000
"""Microseconds in a second."""

_HOUR = 3600
_PER_HOST = 8
_GROUP = 32
"""Hosts whose readings of one hour are one segment."""

_MODEL = "NVIDIA H100 80GB HBM3"
_LIMIT_MW = 700_000
_IDLE_MW = 70_000
_LEVEL_MW = {"pretraining": 640_000, "finetuning": 540_000, "sweep": 420_000, "mig": 260_000}
"""Mean board power of a busy GPU by what it does (8 x H100 logs; docs/simulator.md)."""

_MEMORY_MIB = {"pretraining": 76_000, "finetuning": 58_000, "sweep": 31_000, "mig": 40_000}

_GPU_FAILURES_PER_H = 2e-5
_REBOOTS_PER_H = 1e-4
_OUTAGES_PER_H = 3e-4
"""How often a GPU falls off the bus, a host restarts, a collector is silent."""

_LOSSY, _MISSED = 0.06, 0.01
"""Hours of a host in which readings are missed, and how many of them, as shares."""

_THROTTLED = 0.02
"""Hours of a host in which it runs hot, as a share."""

_THERMAL, _POWER_CAP = 0x20, 0x04
"""Bits of throttle_reasons: NVML's SwThermalSlowdown and SwPowerCap."""

_Numbers = npt.NDArray[np.int64]
_Power = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Fleet:
    """What is asked for."""

    gpus: int
    hours: int
    seed: int = 1
    period_s: int = 1
    counters: bool = True
    start: datetime = START

    @property
    def hosts(self) -> int:
        return -(-self.gpus // _PER_HOST)

    @property
    def end_us(self) -> int:
        return self.hours * _HOUR * _S

    def gpus_of(self, host: int) -> int:
        return min(_PER_HOST, self.gpus - host * _PER_HOST)


@dataclass
class Job:
    """A run: who holds what from when to when, in microseconds since the start."""

    run_id: str
    kind: str
    family: str
    hosts: list[int]
    gpus: str
    """As a run table says it: all, or indices."""
    start_us: int
    end_us: int
    share_ppm: int = PPM

    def indices(self, count: int) -> list[int]:
        chosen = range(count) if self.gpus == "all" else map(int, self.gpus.split(";"))
        return [index for index in chosen if index < count]


@dataclass
class Plan:
    """All that happens, decided before the first reading."""

    jobs: list[Job] = field(default_factory=list)
    failures: dict[tuple[int, int], int] = field(default_factory=dict)
    """(host, GPU) -> when it fell off the bus; it stays away."""
    reboots: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    outages: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """Host -> when it was down, or its collector silent."""


@dataclass(frozen=True)
class Made:
    """What was written."""

    gpus: int
    readings: int
    missed: int
    runs: int
    segments: int
    true_kwh: float
    seconds: float
    folder: Path


def simulate(
    fleet: Fleet,
    folder: Path,
    progress: Callable[[int], None] = lambda readings: None,
    workers: int | None = None,
) -> Made:
    """Write the project of a simulated fleet into a new folder, using all processors if not told.

    `progress` is told how many readings were written, from several threads.

    Raises:
        UsageError: the folder holds something, or the fleet makes no sense.
    """
    _check(fleet, folder)
    began = time.perf_counter()
    readings = folder / "readings"
    readings.mkdir(parents=True, exist_ok=True)
    plan = plan_of(fleet)
    groups = range(0, fleet.hosts, _GROUP)

    def work(first: int) -> _Took:
        group = _Group(fleet, plan, first)
        for hour in range(fleet.hours):
            progress(group.write(hour, readings / f"group{first // _GROUP:05d}-{hour:05d}.parquet"))
        return group.took()

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        done = list(pool.map(work, groups))
    true_nj = _write_truth(fleet, done, folder / TRUTH)
    _write_runs(fleet, plan, folder / "runs.csv")
    _write_grid(fleet, folder / "grid.csv")
    (folder / FILE_NAME).write_text(_SETTINGS.format(name=folder.resolve().name), "utf-8")
    written = sum(group.readings for group in done)
    return Made(
        fleet.gpus,
        written,
        fleet.gpus * fleet.hours * _HOUR // fleet.period_s - written,
        len({job.run_id for job in plan.jobs}),
        len(groups) * fleet.hours,
        true_nj / 3.6e15,
        time.perf_counter() - began,
        folder,
    )


def _check(fleet: Fleet, folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(
            "there is something in it already", where=str(folder), remedy="Name a new folder"
        )
    for name, value, most in (
        ("--gpus", fleet.gpus, 1_000_000),
        ("--hours", fleet.hours, 24 * 366),
        ("--period", fleet.period_s, 60),
    ):
        if not 1 <= value <= most:
            raise UsageError(f"{value} is not between 1 and {most}", where=name)
    if _HOUR % fleet.period_s:
        raise UsageError(
            f"{fleet.period_s} s do not divide an hour",
            where="--period",
            remedy="Say 1, 2, 5 or 10",
        )


# Who does what, when ----------------------------------------------------------------------------


def plan_of(fleet: Fleet) -> Plan:
    """Runs, failures, reboots and outages of a fleet.

    More than half of the hosts train one model, a third fine-tune, the rest run sweeps on single GPUs and MIG
    slices. A run ends a little after one of its GPUs failed or a host restarted, and begins anew.
    """
    rng = np.random.default_rng([fleet.seed, 0])
    plan = Plan()
    _accidents(fleet, plan, rng)
    hosts = list(range(fleet.hosts))
    big, middle = round(0.55 * fleet.hosts), round(0.33 * fleet.hosts)
    if fleet.hosts >= 8:
        _lane(plan, fleet, rng, hosts[:big], "pretraining", "pretrain", fleet.hours * _HOUR)
    else:
        middle, big = fleet.hosts - fleet.hosts // 2, 0
    at, number = big, 0
    while at < big + middle:
        width = min(int(rng.choice([1, 1, 2, 4, 8])), big + middle - at)
        number += 1
        _lane(plan, fleet, rng, hosts[at : at + width], "finetuning", f"tune{number:04d}", 7200)
        at += width
    for host in hosts[big + middle :]:
        # Every third such host is cut into slices, of which two are never held.
        if host % 3 == 0:
            for part in range(5):
                name = f"slice{host:05d}-{part}"
                _lane(plan, fleet, rng, [host], "mig", name, 2700, gpus="all", share=PPM // 7)
            continue
        for index in range(fleet.gpus_of(host)):
            name = f"sweep{host:05d}-{index}"
            _lane(plan, fleet, rng, [host], "sweep", name, 1800, gpus=str(index))
    return plan


def _accidents(fleet: Fleet, plan: Plan, rng: np.random.Generator) -> None:
    def times(count: int) -> list[int]:
        return sorted(int(t) for t in rng.integers(0, fleet.end_us, count))

    for at in times(rng.poisson(_GPU_FAILURES_PER_H * fleet.gpus * fleet.hours)):
        host = int(rng.integers(fleet.hosts))
        plan.failures.setdefault((host, int(rng.integers(fleet.gpus_of(host)))), at)
    for found, rate, shortest, longest in (
        (plan.reboots, _REBOOTS_PER_H, 180, 420),
        (plan.outages, _OUTAGES_PER_H, 40, 1200),
    ):
        for at in times(rng.poisson(rate * fleet.hosts * fleet.hours)):
            length = int(rng.integers(shortest, longest)) * _S
            found.setdefault(int(rng.integers(fleet.hosts)), []).append((at, at + length))


def _lane(
    plan: Plan,
    fleet: Fleet,
    rng: np.random.Generator,
    hosts: list[int],
    kind: str,
    family: str,
    typical_s: int,
    gpus: str = "all",
    share: int = PPM,
) -> None:
    """Runs one after the other on the same hosts, with idle time between."""
    # The last one named counts: the first GPU of a host to fail.
    lost = {
        host: at
        for (host, gpu), at in sorted(plan.failures.items(), key=lambda item: -item[1])
        if gpus in ("all", str(gpu))
    }
    restarts = [times for host in hosts for times in plan.reboots.get(host, [])]
    stops = sorted([lost[host] for host in hosts if host in lost] + [down for down, _ in restarts])

    def after(at: int, shortest_s: int, longest_s: int) -> int:
        at += int(rng.integers(shortest_s, longest_s) * _S + rng.integers(_S))
        return max([at, *(up + 5 * _S for down, up in restarts if down <= at)])

    at = after(0, 20, 900)
    number = 0
    while at < fleet.end_us - 60 * _S:
        # A host that lost a GPU is drained.
        able = [host for host in hosts if lost.get(host, at) >= at]
        if not able:
            return
        number += 1
        length = typical_s
        if kind != "pretraining":
            length = max(30, round(typical_s * rng.lognormal(0, 0.6)))
        end = min(at + length * _S, fleet.end_us - int(rng.integers(5, 50) * _S))
        stop = next((s for s in stops if s > at), end)
        if stop < end:
            end = stop + int(rng.integers(3, 20) * _S + rng.integers(_S))
        plan.jobs.append(Job(f"{family}-{number:03d}", kind, family, able, gpus, at, end, share))
        at = after(end, 60, 1200)


# Power, readings, truth -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Took:
    """What a few hosts took, in nanojoules."""

    readings: int
    gpu_nj: dict[tuple[int, int], int]
    """(host, GPU) -> all of it."""
    run_nj: dict[tuple[str, int, int], int]
    """(run, host, GPU) -> while the run held it, by its share."""


class _Group:
    """A few hosts: their readings hour by hour, and what their runs truly took.

    Power is constant within each second of true time, so a second takes as many millijoules as its power has
    milliwatts, and energy up to any microsecond is exact in nanojoules.
    """

    def __init__(self, fleet: Fleet, plan: Plan, first: int) -> None:
        self._fleet = fleet
        self._plan = plan
        self._hosts = range(first, min(first + _GROUP, fleet.hosts))
        mine = set(self._hosts)
        self._jobs: dict[int, list[Job]] = {host: [] for host in self._hosts}
        for job in plan.jobs:
            for host in job.hosts:
                if host in mine:
                    self._jobs[host].append(job)
        rng = np.random.default_rng([fleet.seed, 1, first])
        count = len(self._hosts)
        self._spread = (1 + rng.normal(0, 0.025, (count, _PER_HOST))).astype(np.float32)
        # Most clocks are kept by NTP; a few are off by seconds, and drift.
        poor = rng.random(count) < 0.03
        self._skew_us = np.where(poor, rng.normal(0, 1.5e6, count), rng.normal(0, 2e3, count))
        self._drift_ppm = np.where(poor, rng.normal(0, 15, count), rng.normal(0, 0.2, count))
        self._epoch_us = int(fleet.start.timestamp()) * _S
        size = count * _PER_HOST * _HOUR // fleet.period_s
        self._columns = {
            name: np.empty(size, _STORED[name])
            for name in _NUMBERS
            if fleet.counters or name != "energy_mj"
        }
        self._same = np.zeros(size, np.int8)
        self._noise = 1 + np.float32(0.02) * rng.standard_normal(1 << 17, np.float32)
        # Where each GPU's counter stands, its power in the second before, and what it lost to resets.
        self._total = rng.integers(10**9, 10**12, (count, _PER_HOST))
        self._at_start = self._total.copy()
        self._lost = np.zeros((count, _PER_HOST), np.int64)
        self._before = np.full((count, _PER_HOST), _IDLE_MW, np.int32)
        self._written = 0
        self._by_run: dict[tuple[str, int, int], int] = {}

    def took(self) -> _Took:
        """What there is to say of all hours together."""
        took = (self._total - self._at_start).tolist()
        gpus = {
            (host, gpu): took[place][gpu] * _S
            for place, host in enumerate(self._hosts)
            for gpu in range(self._fleet.gpus_of(host))
        }
        # Shares were counted in millionths, so that nothing was rounded on the way.
        runs = {key: millionths // PPM for key, millionths in self._by_run.items()}
        return _Took(self._written, gpus, runs)

    def write(self, hour: int, path: Path) -> int:
        """Write the segment of one hour; returns how many readings it has."""
        rng = np.random.default_rng([self._fleet.seed, 2, self._hosts[0], hour])
        counts: list[int] = []
        filled = 0
        for place, host in enumerate(self._hosts):
            kept = self._hour(place, host, hour, rng, filled)
            counts += kept
            filled += sum(kept)
        table = self._table(counts, filled)
        with pq.ParquetWriter(
            path,
            table.schema,
            compression="snappy",
            use_dictionary=_NAMES,
            column_encoding=dict.fromkeys(_NUMBERS, "DELTA_BINARY_PACKED"),
            # Of each column they would take a fifth of the time, and of most nobody asks.
            write_statistics=["ts"],
            store_schema=False,
        ) as writer:
            writer.write_table(table, row_group_size=1 << 20)
        self._written += filled
        return filled

    def _hour(
        self, place: int, host: int, hour: int, rng: np.random.Generator, filled: int
    ) -> list[int]:
        """Add one host's readings to the segment; gives how many each of its GPUs has."""
        fleet, count = self._fleet, self._fleet.gpus_of(host)
        begin = hour * _HOUR
        power, busy, memory, reasons = self._power(place, host, begin, rng)
        # Millijoules up to the beginning of each second, and of the one after.
        spent = np.zeros((count, _HOUR + 1), np.int64)
        np.cumsum(power, axis=1, out=spent[:, 1:])
        self._account(host, begin, power, spent)

        at = np.arange(0, _HOUR, fleet.period_s)
        # A sweep over the GPUs of a host takes a fraction of a millisecond, and now and then far longer.
        late = rng.integers(0, 2500, at.size)
        late[rng.random(at.size) < 0.002] += 150_000
        now = power[:, :: fleet.period_s]
        last = np.empty_like(now)
        last[:, 0] = self._before[place, :count]
        last[:, 1:] = power[:, fleet.period_s - 1 : -1 : fleet.period_s]
        works = busy[:, :: fleet.period_s]
        true_us = (begin + at) * _S + late
        skew = int(self._skew_us[place]) + (true_us * self._drift_ppm[place] / 1e6).astype(np.int64)
        columns: dict[str, npt.NDArray[Any]] = {
            "ts": np.broadcast_to(self._epoch_us + true_us + skew, now.shape),
            "power_mw": self._shown(now, last, (late / _S).astype(np.float32), (host, hour)),
            "util_pct": (100 - (now & 3)) * works,
            "mem_used_mib": memory[:, :: fleet.period_s],
            "temp_c": (30 + (now >> 14)),
            "sm_clock_mhz": np.where(works, 1980 - 15 * (now & 7), 345),
            "throttle_reasons": reasons[:, :: fleet.period_s],
        }
        if fleet.counters:
            counter = now * late
            counter //= _S
            counter += spent[:, : -1 : fleet.period_s]
            counter += self._total[place, :count, None]
            self._lose(place, host, begin, at, spent, counter)
            columns["energy_mj"] = counter
        self._total[place, :count] += spent[:, -1]
        self._before[place, :count] = power[:, -1]
        kept = self._kept(host, begin, at, rng)
        if kept is None:
            for name, values in columns.items():
                self._columns[name][filled : filled + now.size].reshape(now.shape)[...] = values
            return [at.size] * count
        for name, values in columns.items():
            taken = values[kept]
            self._columns[name][filled : filled + taken.size] = taken
        return [int(n) for n in kept.sum(axis=1)]

    def _shown(
        self, now: _Power, last: _Power, late: npt.NDArray[np.float32], of: tuple[int, int]
    ) -> _Power:
        """The power that the driver gives: the mean of the second before; of old boards that of the moment."""
        if self._fleet.counters:
            return last + ((now - last).astype(np.float32) * late).astype(np.int32)
        # Within a second power swings around its mean, three times as far as seconds do.
        rng = np.random.default_rng([self._fleet.seed, 3, *of])
        shown = now.astype(np.float32)
        for gpu in range(len(now)):
            offset = int(rng.integers(self._noise.size - _HOUR))
            shown[gpu] *= 3 * self._noise[offset : offset + now.shape[1]] - 2
        return shown.astype(np.int32)

    def _table(self, counts: list[int], filled: int) -> pa.Table:
        """What was filled, as a segment; names are held once, so that only numbers are written."""
        fleet = self._fleet
        gpus = [(host, gpu) for host in self._hosts for gpu in range(fleet.gpus_of(host))]

        def each(values: list[int]) -> npt.NDArray[np.int32]:
            return np.repeat(np.array(values, np.int32), counts)

        def names(numbers: npt.NDArray[Any], values: list[str]) -> pa.Array:
            return pa.DictionaryArray.from_arrays(numbers, values)

        columns = {
            "gpu_uuid": names(
                each(list(range(len(gpus)))), [gpu_uuid(fleet, host, gpu) for host, gpu in gpus]
            ),
            "host": names(
                each([host - self._hosts[0] for host, _ in gpus]),
                [host_name(host) for host in self._hosts],
            ),
            "gpu_index": pa.array(each([gpu for _, gpu in gpus])),
            "model": names(self._same[:filled], [_MODEL]),
            "power_source": names(
                self._same[:filled], ["average_1s" if fleet.counters else "instant"]
            ),
            **{
                name: pa.array(values[:filled]).cast(_NUMBERS[name])
                for name, values in self._columns.items()
            },
        }
        # Saying that nothing is null saves writing it for each value.
        fields = [pa.field(name, values.type, nullable=False) for name, values in columns.items()]
        return pa.table(columns, pa.schema(fields, {SAMPLE_KEY: "true"}))

    def _power(
        self, place: int, host: int, begin: int, rng: np.random.Generator
    ) -> tuple[_Power, npt.NDArray[np.bool_], _Power, _Power]:
        """True power of each GPU in each second of an hour; whether it works; memory; throttling."""
        count = self._fleet.gpus_of(host)
        shape = (count, _HOUR)
        level = np.full(shape, _IDLE_MW, np.float32)
        busy = np.zeros(shape, bool)
        memory = np.full(shape, 520, np.int32)
        reasons = np.zeros(shape, np.int32)
        second = np.arange(begin, begin + _HOUR)
        for job in self._jobs[host]:
            a = max(0, -(-job.start_us // _S) - begin)
            b = min(_HOUR, job.end_us // _S - begin)
            if a >= b:
                continue
            gpus = job.indices(count)
            course = _course(job, second[a:b])
            if job.kind == "mig":
                # Each slice adds its part to what its neighbours draw.
                level[gpus, a:b] += course * 0.3
            else:
                level[gpus, a:b] = course
            busy[gpus, a:b] = True
            memory[gpus, a:b] = _MEMORY_MIB[job.kind]
        level *= self._spread[place, :count, None]
        for gpu in range(count):
            offset = int(rng.integers(self._noise.size - _HOUR))
            level[gpu] *= self._noise[offset : offset + _HOUR]
        if rng.random() < _THROTTLED:
            a, b = sorted(int(x) for x in rng.integers(0, _HOUR, 2))
            np.copyto(level[:, a:b], level[:, a:b] * 0.78, where=busy[:, a:b])
            reasons[:, a:b] |= np.where(busy[:, a:b], _THERMAL, 0).astype(np.int32)
        reasons[level >= _LIMIT_MW] |= _POWER_CAP
        np.minimum(level, _LIMIT_MW, out=level)
        power = level.astype(np.int32)
        for (where, gpu), at in self._plan.failures.items():
            if where == host and at // _S < begin + _HOUR:
                power[gpu, max(0, at // _S - begin) :] = 18_000
        for a_us, b_us in self._plan.reboots.get(host, []):
            a, b = (min(max(x // _S - begin, 0), _HOUR) for x in (a_us, b_us))
            power[:, a:b] = 45_000
        return power, busy, memory, reasons

    def _account(self, host: int, begin: int, power: _Power, spent: _Numbers) -> None:
        """Add what each run took in this hour, by integration up to the microsecond."""
        low, high = begin * _S, (begin + _HOUR) * _S

        def upto(gpu: int, us: int) -> int:
            second, rest = divmod(us - low, _S)
            within = int(power[gpu, second]) * rest if rest else 0
            return int(spent[gpu, second]) * _S + within

        for job in self._jobs[host]:
            a, b = max(job.start_us, low), min(job.end_us, high)
            if a >= b:
                continue
            for gpu in job.indices(len(power)):
                key = (job.run_id, host, gpu)
                took = upto(gpu, b) - upto(gpu, a)
                self._by_run[key] = self._by_run.get(key, 0) + took * job.share_ppm

    def _lose(
        self, place: int, host: int, begin: int, at: _Numbers, spent: _Numbers, counter: _Numbers
    ) -> None:
        """Counters begin anew when their host does."""
        count = len(spent)
        counter -= self._lost[place, :count, None]
        for _, up_us in self._plan.reboots.get(host, []):
            second = up_us // _S - begin
            if 0 <= second < _HOUR:
                now = self._total[place, :count] + spent[:, second]
                counter[:, at >= second] -= (now - self._lost[place, :count])[:, None]
                self._lost[place, :count] = now

    def _kept(
        self, host: int, begin: int, at: _Numbers, rng: np.random.Generator
    ) -> npt.NDArray[np.bool_] | None:
        """Which readings were taken; None for all of them."""
        away = [*self._plan.reboots.get(host, []), *self._plan.outages.get(host, [])]
        dead = [(gpu, us) for (one, gpu), us in self._plan.failures.items() if one == host]
        lossy = rng.random() < _LOSSY
        low, high = begin * _S, (begin + _HOUR) * _S
        if not lossy and not any(a < high and b >= low for a, b in away) and not dead:
            return None
        kept = np.ones((self._fleet.gpus_of(host), at.size), bool)
        if lossy:
            kept.ravel()[rng.integers(0, kept.size, rng.poisson(_MISSED * kept.size))] = False
        for a_us, b_us in away:
            kept[:, (at + begin >= a_us // _S) & (at + begin <= b_us // _S)] = False
        for gpu, us in dead:
            kept[gpu, at + begin >= us // _S] = False
        return kept


def _course(job: Job, second: _Numbers) -> npt.NDArray[np.float32]:
    """Power of a run's GPUs, in milliwatts, second by second: warming up, working, saving, evaluating."""
    since = second - job.start_us // _S
    odd = job.start_us // _S
    course = np.full(second.size, _LEVEL_MW[job.kind], np.float32)
    course *= np.clip(0.35 + 0.65 * since / 120, 0, 1).astype(np.float32)
    every = 900 + odd % 1800
    course[since % every >= every - 40] = 150_000
    if job.kind == "pretraining":
        course[since % 10_800 >= 10_500] *= 0.62
    if job.kind == "sweep":
        # Between one trial and the next the data are loaded.
        course[since % 600 >= 570] = 95_000
    return course


_NAMES = ["gpu_uuid", "host", "model", "power_source"]
_NUMBERS: dict[str, pa.DataType] = {
    "ts": pa.timestamp("us", "UTC"),
    "power_mw": pa.int32(),
    "energy_mj": pa.int64(),
    "util_pct": pa.int16(),
    "mem_used_mib": pa.int32(),
    "temp_c": pa.int16(),
    "sm_clock_mhz": pa.int16(),
    "throttle_reasons": pa.int64(),
}
_STORED: dict[str, Any] = {
    "ts": np.int64,
    "power_mw": np.int32,
    "energy_mj": np.int64,
    "util_pct": np.int16,
    "mem_used_mib": np.int32,
    "temp_c": np.int16,
    "sm_clock_mhz": np.int16,
    "throttle_reasons": np.int64,
}


def gpu_uuid(fleet: Fleet, host: int, gpu: int) -> str:
    """A UUID in NVML's form; in the order of hosts and GPUs, so that segments need no sorting."""
    digest = hashlib.sha256(f"{fleet.seed} {host} {gpu}".encode()).hexdigest()
    number = host * _PER_HOST + gpu
    return f"GPU-{number:08x}-{digest[:4]}-{digest[4:8]}-{digest[8:12]}-{digest[12:24]}"


def host_name(host: int) -> str:
    return f"node{host:05d}"


# What lies beside ---------------------------------------------------------------------------------

_SETTINGS = """\
# A simulated fleet: `wattledger pipeline`, then compare with truth.parquet (docs/simulator.md).

[project]
name = "{name}"
title = "Simulated fleet"

[[input.gpu]]
paths = ["readings/*.parquet"]

[[input.grid]]
paths = ["grid.csv"]
zone = "SIM"

[[input.runs]]
paths = ["runs.csv"]

[[site]]
name = "simulated"
hosts = ["*"]
zone = "SIM"
pue = {{ value = 1.2, low = 1.15, high = 1.3 }}
wue_l_per_kwh = {{ value = 0.5, low = 0.2, high = 1.8 }}
"""


def _write_truth(fleet: Fleet, groups: list[_Took], path: Path) -> int:
    """By run and GPU, what it took while the run held it; without a run, what nobody held. Gives the sum."""
    rows: list[tuple[str | None, str, str, int]] = []
    for group in groups:
        rest = dict(group.gpu_nj)
        for (run, host, gpu), took in group.run_nj.items():
            rest[host, gpu] -= took
            rows.append((run, host_name(host), gpu_uuid(fleet, host, gpu), took))
        for (host, gpu), left in rest.items():
            rows.append((None, host_name(host), gpu_uuid(fleet, host, gpu), left))
    schema = {"run_id": pl.String, "host": pl.String, "gpu_uuid": pl.String, "energy_nj": pl.Int64}
    pl.DataFrame(rows, schema=schema, orient="row").sort("run_id", "gpu_uuid").write_parquet(path)
    return sum(sum(group.gpu_nj.values()) for group in groups)


def _write_runs(fleet: Fleet, plan: Plan, path: Path) -> None:
    def when(us: int) -> str:
        return (fleet.start + timedelta(microseconds=us)).isoformat()

    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["run_id", "started_at", "ended_at", "host", "gpu", "share", "family", "kind"])
        for job in plan.jobs:
            hosts = ";".join(host_name(host) for host in job.hosts)
            out.writerow(
                [
                    job.run_id,
                    when(job.start_us),
                    when(job.end_us),
                    hosts,
                    job.gpus,
                    f"{job.share_ppm / PPM:.6f}",
                    job.family,
                    job.kind,
                ]
            )


def _write_grid(fleet: Fleet, path: Path) -> None:
    """A grid of sun and wind: cleanest at noon."""
    hours = np.arange(-2, fleet.hours + 2)
    day = np.cos((hours % 24 - 13) / 24 * 2 * np.pi)
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["valid_from", "valid_to", "intensity_g_per_kwh"])
        for hour, sun in zip(hours.tolist(), day.tolist(), strict=True):
            begin = fleet.start + timedelta(hours=hour)
            out.writerow(
                [
                    begin.isoformat(),
                    (begin + timedelta(hours=1)).isoformat(),
                    f"{320 - 110 * sun:.1f}",
                ]
            )
