"""The plan of a simulated fleet: which runs hold which GPUs when, and what fails.

Everything here is drawn before the first reading. The order of draws is part of what a seed means.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from transforms.constants import PPM

START = datetime(2026, 3, 2, tzinfo=UTC)

SECOND_US = 1_000_000
HOUR_S = 3600
GPUS_PER_HOST = 8

_GPU_FAILURES_PER_H = 2e-5
_REBOOTS_PER_H = 1e-4
_OUTAGES_PER_H = 3e-4
"""How often a GPU falls off the bus, a host restarts, a collector is silent."""


@dataclass(frozen=True)
class Fleet:
    """A fleet to simulate: how large, for how long, and how it is read."""

    gpus: int
    hours: int
    seed: int = 1
    period_s: int = 1
    counters: bool = True
    start: datetime = START

    @property
    def hosts(self) -> int:
        return -(-self.gpus // GPUS_PER_HOST)

    @property
    def end_us(self) -> int:
        return self.hours * HOUR_S * SECOND_US

    def gpus_of(self, host: int) -> int:
        return min(GPUS_PER_HOST, self.gpus - host * GPUS_PER_HOST)


@dataclass
class PlannedRun:
    """A run: who holds what from when to when, in microseconds since the start."""

    run_id: str
    kind: str
    family: str
    hosts: list[int]
    gpus: str
    """As a run table has it: all, or indices."""
    start_us: int
    end_us: int
    share_ppm: int = PPM

    def list_gpus(self, count: int) -> list[int]:
        """Indices of the GPUs that it holds on a host with `count` of them."""
        indices = range(count) if self.gpus == "all" else map(int, self.gpus.split(";"))
        return [index for index in indices if index < count]


@dataclass
class Plan:
    """All that happens, decided before the first reading."""

    runs: list[PlannedRun] = field(default_factory=list)
    failures: dict[tuple[int, int], int] = field(default_factory=dict)
    """(host, GPU) -> when it fell off the bus; it stays away."""
    reboots: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """Host -> from when to when it was down."""
    outages: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """Host -> from when to when its collector was silent."""


@dataclass(frozen=True)
class _Lane:
    """GPUs on which runs of a kind follow each other."""

    kind: str
    family: str
    hosts: list[int]
    typical_s: int
    gpus: str = "all"
    share_ppm: int = PPM


def make_gpu_uuid(fleet: Fleet, host: int, gpu: int) -> str:
    """A UUID in NVML's form; in the order of hosts and GPUs, so that segments need no sorting."""
    digest = hashlib.sha256(f"{fleet.seed} {host} {gpu}".encode()).hexdigest()
    number = host * GPUS_PER_HOST + gpu
    return f"GPU-{number:08x}-{digest[:4]}-{digest[4:8]}-{digest[8:12]}-{digest[12:24]}"


def make_host_name(host: int) -> str:
    return f"node{host:05d}"


def plan_fleet(fleet: Fleet) -> Plan:
    """Draw the runs, failures, reboots and outages of a fleet.

    More than half of the hosts train one model, a third fine-tune, the rest run sweeps on single GPUs and MIG
    slices. A run ends a little after one of its GPUs failed or a host restarted, and begins anew.
    """
    rng = np.random.default_rng([fleet.seed, 0])
    plan = Plan()
    _add_accidents(plan, fleet, rng)
    for lane in _draw_lanes(fleet, rng):
        _add_runs(plan, fleet, rng, lane)
    return plan


def _add_accidents(plan: Plan, fleet: Fleet, rng: np.random.Generator) -> None:
    def draw_times(count: int) -> list[int]:
        return sorted(int(t) for t in rng.integers(0, fleet.end_us, count))

    for at_us in draw_times(rng.poisson(_GPU_FAILURES_PER_H * fleet.gpus * fleet.hours)):
        host = int(rng.integers(fleet.hosts))
        plan.failures.setdefault((host, int(rng.integers(fleet.gpus_of(host)))), at_us)
    for accidents, rate, shortest_s, longest_s in (
        (plan.reboots, _REBOOTS_PER_H, 180, 420),
        (plan.outages, _OUTAGES_PER_H, 40, 1200),
    ):
        for at_us in draw_times(rng.poisson(rate * fleet.hosts * fleet.hours)):
            length_us = int(rng.integers(shortest_s, longest_s)) * SECOND_US
            host = int(rng.integers(fleet.hosts))
            accidents.setdefault(host, []).append((at_us, at_us + length_us))


def _draw_lanes(fleet: Fleet, rng: np.random.Generator) -> Iterator[_Lane]:
    """What hosts are used for. Drawn lazily: the runs of a lane are drawn before the next lane."""
    hosts = list(range(fleet.hosts))
    pretraining, finetuning = round(0.55 * fleet.hosts), round(0.33 * fleet.hosts)
    if fleet.hosts >= 8:
        yield _Lane("pretraining", "pretrain", hosts[:pretraining], fleet.hours * HOUR_S)
    else:
        pretraining, finetuning = 0, fleet.hosts - fleet.hosts // 2
    first, end, number = pretraining, pretraining + finetuning, 0
    while first < end:
        width = min(int(rng.choice([1, 1, 2, 4, 8])), end - first)
        number += 1
        yield _Lane("finetuning", f"tune{number:04d}", hosts[first : first + width], 7200)
        first += width
    for host in hosts[end:]:
        yield from _split_host(fleet, host)


def _split_host(fleet: Fleet, host: int) -> Iterator[_Lane]:
    """A host whose GPUs are used apart. Every third is cut into slices, of which two are never held."""
    if host % 3 == 0:
        for part in range(5):
            yield _Lane("mig", f"slice{host:05d}-{part}", [host], 2700, share_ppm=PPM // 7)
        return
    for index in range(fleet.gpus_of(host)):
        yield _Lane("sweep", f"sweep{host:05d}-{index}", [host], 1800, gpus=str(index))


def _add_runs(plan: Plan, fleet: Fleet, rng: np.random.Generator, lane: _Lane) -> None:
    """Add the runs of a lane, one after the other, with idle time between them."""
    failed_us = _first_failures(plan, lane)
    restarts = [down_up for host in lane.hosts for down_up in plan.reboots.get(host, [])]
    stops = sorted(
        [failed_us[host] for host in lane.hosts if host in failed_us]
        + [down for down, _ in restarts]
    )

    def draw_start(at_us: int, shortest_s: int, longest_s: int) -> int:
        at_us += int(rng.integers(shortest_s, longest_s) * SECOND_US + rng.integers(SECOND_US))
        return max([at_us, *(up + 5 * SECOND_US for down, up in restarts if down <= at_us)])

    start = draw_start(0, 20, 900)
    number = 0
    while start < fleet.end_us - 60 * SECOND_US:
        # A host that lost a GPU is drained.
        hosts = [host for host in lane.hosts if failed_us.get(host, start) >= start]
        if not hosts:
            return
        number += 1
        length_s = lane.typical_s
        if lane.kind != "pretraining":
            length_s = max(30, round(lane.typical_s * rng.lognormal(0, 0.6)))
        end = min(start + length_s * SECOND_US, fleet.end_us - int(rng.integers(5, 50) * SECOND_US))
        stop = next((at_us for at_us in stops if at_us > start), end)
        if stop < end:
            end = stop + int(rng.integers(3, 20) * SECOND_US + rng.integers(SECOND_US))
        plan.runs.append(
            PlannedRun(
                run_id=f"{lane.family}-{number:03d}",
                kind=lane.kind,
                family=lane.family,
                hosts=hosts,
                gpus=lane.gpus,
                start_us=start,
                end_us=end,
                share_ppm=lane.share_ppm,
            )
        )
        start = draw_start(end, 60, 1200)


def _first_failures(plan: Plan, lane: _Lane) -> dict[int, int]:
    """Host -> when the first of the GPUs that a lane uses failed."""
    first_us: dict[int, int] = {}
    for (host, gpu), at_us in plan.failures.items():
        if lane.gpus in ("all", str(gpu)):
            first_us[host] = min(at_us, first_us.get(host, at_us))
    return first_us
