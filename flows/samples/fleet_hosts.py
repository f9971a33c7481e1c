"""Hosts of a simulated fleet, hour by hour: true power, the energy of each run, and what a meter reads.

Power is constant within each second of true time, so a second takes as many millijoules as its power has
milliwatts, and energy up to any microsecond is exact in nanojoules.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from flows.samples.fleet_plan import (
    GPUS_PER_HOST,
    HOUR_S,
    SECOND_US,
    Fleet,
    Plan,
    PlannedRun,
    make_gpu_uuid,
    make_host_name,
)
from transforms.constants import PPM
from wattledger.spool.spool import SAMPLE_KEY

HOSTS_PER_GROUP = 32
"""Hosts whose readings of one hour are one segment."""

_MODEL = "NVIDIA H100 80GB HBM3"
_LIMIT_MW = 700_000
_IDLE_MW = 70_000
_FAILED_MW = 18_000
_RESTARTING_MW = 45_000
_CHECKPOINT_MW = 150_000
_LOADING_MW = 95_000
_LEVEL_MW = {"pretraining": 640_000, "finetuning": 540_000, "sweep": 420_000, "mig": 260_000}
"""Mean board power of a busy GPU by what it does (8 x H100 logs; docs/simulator.md)."""

_IDLE_MIB = 520
_MEMORY_MIB = {"pretraining": 76_000, "finetuning": 58_000, "sweep": 31_000, "mig": 40_000}

_LOSSY, _MISSED = 0.06, 0.01
"""Share of the hours of a host in which readings are missed, and of the readings that are."""

_THROTTLED = 0.02
"""Share of the hours of a host in which it runs hot."""

_THERMAL, _POWER_CAP = 0x20, 0x04
"""Bits of throttle_reasons: NVML's SwThermalSlowdown and SwPowerCap."""

_NAMES = ["gpu_uuid", "host", "model", "power_source"]
_NUMBERS: dict[str, tuple[Any, pa.DataType]] = {
    "ts": (np.int64, pa.timestamp("us", "UTC")),
    "power_mw": (np.int32, pa.int32()),
    "energy_mj": (np.int64, pa.int64()),
    "util_pct": (np.int16, pa.int16()),
    "mem_used_mib": (np.int32, pa.int32()),
    "temp_c": (np.int16, pa.int16()),
    "sm_clock_mhz": (np.int16, pa.int16()),
    "throttle_reasons": (np.int64, pa.int64()),
}
"""Columns of a segment that are numbers: their types while they are filled, and as they are written."""

_Int64s = npt.NDArray[np.int64]
_Int32s = npt.NDArray[np.int32]
_Floats = npt.NDArray[np.float32]
_Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class GroupTotals:
    """What a group of hosts took in all hours, in nanojoules."""

    readings: int
    gpu_nj: dict[tuple[int, int], int]
    """(host, GPU) -> all of it."""
    run_nj: dict[tuple[str, int, int], int]
    """(run, host, GPU) -> while the run held it, by its share."""


@dataclass(frozen=True)
class _HostHour:
    """What truly happens on a host in an hour, by GPU and second."""

    host: int
    place: int
    """Which host of its group it is."""
    begin_s: int
    power_mw: _Int32s
    busy: _Bools
    memory_mib: _Int32s
    throttle_reasons: _Int32s
    spent_mj: _Int64s
    """Up to the beginning of each second, and to the end of the last."""


class HostGroup:
    """A group of hosts: writes their readings hour by hour, and sums what their runs truly took."""

    def __init__(self, fleet: Fleet, plan: Plan, first_host: int) -> None:
        self._fleet = fleet
        self._plan = plan
        self._hosts = range(first_host, min(first_host + HOSTS_PER_GROUP, fleet.hosts))
        self._runs: dict[int, list[PlannedRun]] = {host: [] for host in self._hosts}
        for run in plan.runs:
            for host in run.hosts:
                if host in self._runs:
                    self._runs[host].append(run)
        rng = np.random.default_rng([fleet.seed, 1, first_host])
        count = len(self._hosts)
        self._spread = (1 + rng.normal(0, 0.025, (count, GPUS_PER_HOST))).astype(np.float32)
        # Most clocks are kept by NTP; a few are off by seconds, and drift.
        poor = rng.random(count) < 0.03
        self._skew_us = np.where(poor, rng.normal(0, 1.5e6, count), rng.normal(0, 2e3, count))
        self._drift_ppm = np.where(poor, rng.normal(0, 15, count), rng.normal(0, 0.2, count))
        self._epoch_us = int(fleet.start.timestamp()) * SECOND_US
        size = count * GPUS_PER_HOST * HOUR_S // fleet.period_s
        self._columns = {
            name: np.empty(size, dtype)
            for name, (dtype, _) in _NUMBERS.items()
            if fleet.counters or name != "energy_mj"
        }
        self._zeros = np.zeros(size, np.int8)
        self._noise = 1 + np.float32(0.02) * rng.standard_normal(1 << 17, np.float32)
        # Where each GPU's counter stands, its power in the second before, and what it lost to resets.
        self._counted_mj = rng.integers(10**9, 10**12, (count, GPUS_PER_HOST))
        self._first_mj = self._counted_mj.copy()
        self._lost_mj = np.zeros((count, GPUS_PER_HOST), np.int64)
        self._last_mw = np.full((count, GPUS_PER_HOST), _IDLE_MW, np.int32)
        self._written = 0
        self._run_ppm_nj: dict[tuple[str, int, int], int] = {}

    def totals(self) -> GroupTotals:
        """What the hosts took in all hours that were written."""
        took_mj = (self._counted_mj - self._first_mj).tolist()
        gpu_nj = {
            (host, gpu): took_mj[place][gpu] * SECOND_US
            for place, host in enumerate(self._hosts)
            for gpu in range(self._fleet.gpus_of(host))
        }
        # Shares were counted in millionths, so that nothing was rounded on the way.
        run_nj = {key: ppm_nj // PPM for key, ppm_nj in self._run_ppm_nj.items()}
        return GroupTotals(self._written, gpu_nj, run_nj)

    def write_hour(self, hour: int, path: Path) -> int:
        """Write the segment of one hour; returns how many readings it has."""
        rng = np.random.default_rng([self._fleet.seed, 2, self._hosts[0], hour])
        counts: list[int] = []
        for place, host in enumerate(self._hosts):
            counts += self._read_host(place, host, hour, rng, sum(counts))
        filled = sum(counts)
        table = self._build_table(counts, filled)
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

    def _read_host(
        self, place: int, host: int, hour: int, rng: np.random.Generator, filled: int
    ) -> list[int]:
        """Add one host's readings of an hour to the columns; gives how many each of its GPUs has."""
        truth = self._draw_truth(place, host, hour * HOUR_S, rng)
        self._account(truth)
        second = np.arange(0, HOUR_S, self._fleet.period_s)
        # A sweep over the GPUs of a host takes a fraction of a millisecond, and now and then far longer.
        late_us = rng.integers(0, 2500, second.size)
        late_us[rng.random(second.size) < 0.002] += 150_000
        columns = self._meter(truth, second, late_us)
        count = len(truth.power_mw)
        self._counted_mj[place, :count] += truth.spent_mj[:, -1]
        self._last_mw[place, :count] = truth.power_mw[:, -1]
        taken = self._draw_taken(truth, second, rng)
        if taken is None:
            shape = (count, second.size)
            for name, values in columns.items():
                self._columns[name][filled : filled + count * second.size].reshape(shape)[...] = (
                    values
                )
            return [second.size] * count
        for name, values in columns.items():
            kept = values[taken]
            self._columns[name][filled : filled + kept.size] = kept
        return [int(n) for n in taken.sum(axis=1)]

    def _draw_truth(
        self, place: int, host: int, begin_s: int, rng: np.random.Generator
    ) -> _HostHour:
        """What the GPUs of a host truly do and draw in each second of an hour."""
        count = self._fleet.gpus_of(host)
        level_mw, busy, memory_mib = self._planned_level(host, begin_s)
        level_mw *= self._spread[place, :count, None]
        for gpu in range(count):
            offset = int(rng.integers(self._noise.size - HOUR_S))
            level_mw[gpu] *= self._noise[offset : offset + HOUR_S]
        reasons = _throttle(level_mw, busy, rng)
        power_mw = level_mw.astype(np.int32)
        self._apply_accidents(power_mw, host, begin_s)
        spent_mj = np.zeros((count, HOUR_S + 1), np.int64)
        np.cumsum(power_mw, axis=1, out=spent_mj[:, 1:])
        return _HostHour(host, place, begin_s, power_mw, busy, memory_mib, reasons, spent_mj)

    def _planned_level(self, host: int, begin_s: int) -> tuple[_Floats, _Bools, _Int32s]:
        """Power of each GPU as its runs ask for it, whether it works, and its memory."""
        count = self._fleet.gpus_of(host)
        shape = (count, HOUR_S)
        level_mw = np.full(shape, _IDLE_MW, np.float32)
        busy = np.zeros(shape, bool)
        memory_mib = np.full(shape, _IDLE_MIB, np.int32)
        second = np.arange(begin_s, begin_s + HOUR_S)
        for run in self._runs[host]:
            a = max(0, -(-run.start_us // SECOND_US) - begin_s)
            b = min(HOUR_S, run.end_us // SECOND_US - begin_s)
            if a >= b:
                continue
            gpus = run.list_gpus(count)
            course_mw = _power_course(run, second[a:b])
            if run.kind == "mig":
                # Each slice adds its part to what its neighbours draw.
                level_mw[gpus, a:b] += course_mw * 0.3
            else:
                level_mw[gpus, a:b] = course_mw
            busy[gpus, a:b] = True
            memory_mib[gpus, a:b] = _MEMORY_MIB[run.kind]
        return level_mw, busy, memory_mib

    def _apply_accidents(self, power_mw: _Int32s, host: int, begin_s: int) -> None:
        """Power of GPUs that fell off the bus, and of a host that restarts."""
        for (failed_host, gpu), at_us in self._plan.failures.items():
            if failed_host == host and at_us // SECOND_US < begin_s + HOUR_S:
                power_mw[gpu, max(0, at_us // SECOND_US - begin_s) :] = _FAILED_MW
        for down_up in self._plan.reboots.get(host, []):
            a, b = (min(max(us // SECOND_US - begin_s, 0), HOUR_S) for us in down_up)
            power_mw[:, a:b] = _RESTARTING_MW

    def _account(self, truth: _HostHour) -> None:
        """Add what each run took in this hour, by integration up to the microsecond."""
        begin_us = truth.begin_s * SECOND_US
        end_us = begin_us + HOUR_S * SECOND_US

        def spent_nj(gpu: int, us: int) -> int:
            second, rest_us = divmod(us - begin_us, SECOND_US)
            within = int(truth.power_mw[gpu, second]) * rest_us if rest_us else 0
            return int(truth.spent_mj[gpu, second]) * SECOND_US + within

        for run in self._runs[truth.host]:
            a, b = max(run.start_us, begin_us), min(run.end_us, end_us)
            if a >= b:
                continue
            for gpu in run.list_gpus(len(truth.power_mw)):
                key = (run.run_id, truth.host, gpu)
                took_nj = spent_nj(gpu, b) - spent_nj(gpu, a)
                self._run_ppm_nj[key] = self._run_ppm_nj.get(key, 0) + took_nj * run.share_ppm

    def _meter(
        self, truth: _HostHour, second: _Int64s, late_us: _Int64s
    ) -> dict[str, npt.NDArray[Any]]:
        """What a meter reads at each `second` of an hour and a little later, by GPU and reading."""
        period_s, place = self._fleet.period_s, truth.place
        now_mw = truth.power_mw[:, ::period_s]
        before_mw = np.empty_like(now_mw)
        before_mw[:, 0] = self._last_mw[place, : len(now_mw)]
        before_mw[:, 1:] = truth.power_mw[:, period_s - 1 : -1 : period_s]
        busy = truth.busy[:, ::period_s]
        true_us = (truth.begin_s + second) * SECOND_US + late_us
        drift_us = (true_us * self._drift_ppm[place] / 1e6).astype(np.int64)
        clock_us = self._epoch_us + true_us + (int(self._skew_us[place]) + drift_us)
        columns: dict[str, npt.NDArray[Any]] = {
            "ts": np.broadcast_to(clock_us, now_mw.shape),
            "power_mw": self._displayed_power(truth, now_mw, before_mw, late_us),
            "util_pct": (100 - (now_mw & 3)) * busy,
            "mem_used_mib": truth.memory_mib[:, ::period_s],
            "temp_c": (30 + (now_mw >> 14)),
            "sm_clock_mhz": np.where(busy, 1980 - 15 * (now_mw & 7), 345),
            "throttle_reasons": truth.throttle_reasons[:, ::period_s],
        }
        if self._fleet.counters:
            columns["energy_mj"] = self._read_counters(truth, second, now_mw, late_us)
        return columns

    def _displayed_power(
        self, truth: _HostHour, now_mw: _Int32s, before_mw: _Int32s, late_us: _Int64s
    ) -> _Int32s:
        """The power that the driver gives: the mean of the second before; of old boards that of the moment."""
        if self._fleet.counters:
            late_s = (late_us / SECOND_US).astype(np.float32)
            return before_mw + ((now_mw - before_mw).astype(np.float32) * late_s).astype(np.int32)
        # Within a second power swings around its mean, three times as far as seconds do.
        rng = np.random.default_rng([self._fleet.seed, 3, truth.host, truth.begin_s // HOUR_S])
        displayed_mw = now_mw.astype(np.float32)
        for gpu in range(len(now_mw)):
            offset = int(rng.integers(self._noise.size - HOUR_S))
            displayed_mw[gpu] *= 3 * self._noise[offset : offset + now_mw.shape[1]] - 2
        return displayed_mw.astype(np.int32)

    def _read_counters(
        self, truth: _HostHour, second: _Int64s, now_mw: _Int32s, late_us: _Int64s
    ) -> _Int64s:
        """Energy counters in mJ, which begin anew when their host does."""
        place, count = truth.place, len(now_mw)
        counter_mj = now_mw * late_us
        counter_mj //= SECOND_US
        counter_mj += truth.spent_mj[:, : -1 : self._fleet.period_s]
        counter_mj += self._counted_mj[place, :count, None]
        counter_mj -= self._lost_mj[place, :count, None]
        for _, up_us in self._plan.reboots.get(truth.host, []):
            up_s = up_us // SECOND_US - truth.begin_s
            if 0 <= up_s < HOUR_S:
                at_reset_mj = self._counted_mj[place, :count] + truth.spent_mj[:, up_s]
                lost_mj = at_reset_mj - self._lost_mj[place, :count]
                counter_mj[:, second >= up_s] -= lost_mj[:, None]
                self._lost_mj[place, :count] = at_reset_mj
        return counter_mj

    def _draw_taken(
        self, truth: _HostHour, second: _Int64s, rng: np.random.Generator
    ) -> _Bools | None:
        """Which readings were taken, by GPU and reading; None for all of them."""
        host, begin_s = truth.host, truth.begin_s
        away = [*self._plan.reboots.get(host, []), *self._plan.outages.get(host, [])]
        failed = [
            (gpu, us)
            for (failed_host, gpu), us in self._plan.failures.items()
            if failed_host == host
        ]
        lossy = rng.random() < _LOSSY
        begin_us, end_us = begin_s * SECOND_US, (begin_s + HOUR_S) * SECOND_US
        if not lossy and not any(a < end_us and b >= begin_us for a, b in away) and not failed:
            return None
        taken = np.ones((len(truth.power_mw), second.size), bool)
        if lossy:
            missed = rng.poisson(_MISSED * taken.size)
            taken.ravel()[rng.integers(0, taken.size, missed)] = False
        at_s = second + begin_s
        for a_us, b_us in away:
            taken[:, (at_s >= a_us // SECOND_US) & (at_s <= b_us // SECOND_US)] = False
        for gpu, us in failed:
            taken[gpu, at_s >= us // SECOND_US] = False
        return taken

    def _build_table(self, counts: list[int], filled: int) -> pa.Table:
        """The columns as a segment; names are held once, so that only numbers are written.

        Args:
            counts: How many readings each GPU has, in order.
            filled: Their sum: how far the columns are filled.
        """
        fleet = self._fleet
        gpus = [(host, gpu) for host in self._hosts for gpu in range(fleet.gpus_of(host))]

        def repeat(values: list[int]) -> npt.NDArray[np.int32]:
            return np.repeat(np.array(values, np.int32), counts)

        def encode(codes: npt.NDArray[Any], names: list[str]) -> pa.Array:
            return pa.DictionaryArray.from_arrays(codes, names)

        power_source = "average_1s" if fleet.counters else "instant"
        columns = {
            "gpu_uuid": encode(
                repeat(list(range(len(gpus)))),
                [make_gpu_uuid(fleet, host, gpu) for host, gpu in gpus],
            ),
            "host": encode(
                repeat([host - self._hosts[0] for host, _ in gpus]),
                [make_host_name(host) for host in self._hosts],
            ),
            "gpu_index": pa.array(repeat([gpu for _, gpu in gpus])),
            "model": encode(self._zeros[:filled], [_MODEL]),
            "power_source": encode(self._zeros[:filled], [power_source]),
            **{
                name: pa.array(values[:filled]).cast(_NUMBERS[name][1])
                for name, values in self._columns.items()
            },
        }
        # Saying that nothing is null saves writing it for each value.
        fields = [pa.field(name, values.type, nullable=False) for name, values in columns.items()]
        return pa.table(columns, pa.schema(fields, {SAMPLE_KEY: "true"}))


def _throttle(level_mw: _Floats, busy: _Bools, rng: np.random.Generator) -> _Int32s:
    """Hold power down where a host runs hot and at the board limit, in place; gives throttle_reasons."""
    reasons = np.zeros(level_mw.shape, np.int32)
    if rng.random() < _THROTTLED:
        a, b = sorted(int(second) for second in rng.integers(0, HOUR_S, 2))
        np.copyto(level_mw[:, a:b], level_mw[:, a:b] * 0.78, where=busy[:, a:b])
        reasons[:, a:b] |= np.where(busy[:, a:b], _THERMAL, 0).astype(np.int32)
    reasons[level_mw >= _LIMIT_MW] |= _POWER_CAP
    np.minimum(level_mw, _LIMIT_MW, out=level_mw)
    return reasons


def _power_course(run: PlannedRun, second: _Int64s) -> _Floats:
    """Power of a run's GPUs in milliwatts, by second: warming up, working, saving, evaluating."""
    since_s = second - run.start_us // SECOND_US
    course_mw = np.full(second.size, _LEVEL_MW[run.kind], np.float32)
    course_mw *= np.clip(0.35 + 0.65 * since_s / 120, 0, 1).astype(np.float32)
    # Any number that is the same at every call: here the second of the start.
    checkpoint_every_s = 900 + (run.start_us // SECOND_US) % 1800
    course_mw[since_s % checkpoint_every_s >= checkpoint_every_s - 40] = _CHECKPOINT_MW
    if run.kind == "pretraining":
        course_mw[since_s % 10_800 >= 10_500] *= 0.62
    if run.kind == "sweep":
        # Between one trial and the next the data are loaded.
        course_mw[since_s % 600 >= 570] = _LOADING_MW
    return course_mw
