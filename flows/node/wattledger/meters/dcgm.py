"""The DCGM exporter as a meter: GPUs of a node from its `/metrics`, and the pods that hold them.

For nodes where an exporter runs already (Kubernetes, mostly). What DCGM's power is, a moment's or an
average, depends on the GPU and is not said: it counts as unknown, and the energy counter comes first.
"""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wattledger.meters.nvml import QUANTITIES, Gpu, Values
from wattledger.process import started_at
from wattledger.runs import records
from wattledger.runs.records import Held, Record

if TYPE_CHECKING:
    from wattledger.collect.collector import Collector

POWER, ENERGY = "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
_METRICS = {
    POWER: ("power_mw", 1000),
    ENERGY: ("energy_mj", 1),
    "DCGM_FI_DEV_GPU_UTIL": ("util_pct", 1),
    "DCGM_FI_DEV_FB_USED": ("mem_used_mib", 1),
    "DCGM_FI_DEV_GPU_TEMP": ("temp_c", 1),
    "DCGM_FI_DEV_MEMORY_TEMP": ("mem_temp_c", 1),
    "DCGM_FI_DEV_SM_CLOCK": ("sm_clock_mhz", 1),
}
"""Metric -> quantity, and what to multiply it with."""


@dataclass
class Seen:
    """One GPU in one scrape."""

    uuid: str
    index: int
    model: str
    host: str
    values: dict[str, int] = field(default_factory=dict)
    pods: dict[tuple[str, str], Held] = field(default_factory=dict)
    """(namespace, run) -> what of the GPU it holds."""


def identity(labels: Mapping[str, str]) -> tuple[str, int, str, str] | None:
    """UUID, index, model and host of a series; None for one that is about no GPU."""
    uuid, index = labels.get("UUID", ""), labels.get("gpu", "")
    if not uuid or not index.isdigit():
        return None
    host = labels.get("Hostname") or labels.get("instance", "").rpartition(":")[0]
    return uuid, int(index), labels.get("modelName", ""), host


def holder(labels: Mapping[str, str], run_label: str) -> tuple[str, str] | None:
    """Namespace and name of the run that a series belongs to; None where no pod holds the GPU."""
    pod = labels.get(run_label) or labels.get("pod") or labels.get("pod_name", "")
    namespace = labels.get("namespace") or labels.get("pod_namespace", "")
    return (namespace, pod) if pod else None


def held(labels: Mapping[str, str], uuid: str, index: int, model: str) -> Held:
    """The GPU, or the MIG instance that the labels name, as a share by its compute slices."""
    instance, profile = labels.get("GPU_I_ID", ""), labels.get("GPU_I_PROFILE", "")
    slices = profile.partition("g.")[0]
    if not instance or not slices.isdigit():
        return Held(uuid, index, model)
    whole = 4 if "A30" in model else 7
    return Held(
        uuid, index, model, min(int(slices), whole) * 1_000_000 // whole, f"{uuid}/{instance}"
    )


def run_id(namespace: str, name: str) -> str:
    return f"k8s-{namespace or 'default'}-{name}"


def parse(text: str, run_label: str = "pod") -> list[Seen]:
    """The GPUs of an exposition, by UUID.

    Series of MIG instances repeat the values of their GPU, which count once.

    Raises:
        ValueError: not the text format of Prometheus.
    """
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[str, Seen] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            # The parser gives counters the suffix that OpenMetrics asks for.
            metric = sample.name.removesuffix("_total")
            if metric not in _METRICS or (who := identity(sample.labels)) is None:
                continue
            uuid, index, model, host = who
            seen = found.setdefault(uuid, Seen(uuid, index, model, host))
            quantity, factor = _METRICS[metric]
            # An instance's own value comes second to that of the GPU.
            if quantity not in seen.values or not sample.labels.get("GPU_I_ID"):
                seen.values[quantity] = round(sample.value * factor)
            if (pod := holder(sample.labels, run_label)) is not None:
                seen.pods[pod] = held(sample.labels, uuid, index, model)
    return [found[uuid] for uuid in sorted(found)]


class Exporter(threading.Thread):
    """Reads an exporter, period after period, for a collector."""

    def __init__(self, collector: Collector, url: str, run_label: str) -> None:
        super().__init__(daemon=True)
        self._collector, self._url, self._run_label = collector, url, run_label
        self._gpus: dict[str, Gpu] = {}
        self._records: dict[tuple[str, str], Record] = {}
        self._down = False

    def run(self) -> None:
        collector, period = self._collector, self._collector.config.period_s
        due = time.monotonic()
        while not collector.stopping:
            self._scrape(period)
            collector.clock_check()
            due = max(due + period, time.monotonic() - period)
            collector.stop_event.wait(max(0.0, due - time.monotonic()))
        self._hold({}, collector.spool.runs)

    def _scrape(self, period_s: float) -> None:
        began = time.monotonic_ns()
        try:
            with urllib.request.urlopen(self._url, timeout=max(1.0, period_s)) as answer:
                found = parse(answer.read().decode(), self._run_label)
        except (OSError, ValueError) as error:
            if not self._down:
                self._collector.note("exporter_lost", None, f"{self._url}: {error}")
            self._down = True
            return
        if self._down:
            self._down = False
            self._collector.note("exporter_back", None, f"{len(found)} GPUs")
        pods: dict[tuple[str, str], dict[str, Held]] = {}
        for seen in found:
            self._collector.keep(self._gpu(seen), began, _values(seen.values))
            for pod, part in seen.pods.items():
                pods.setdefault(pod, {})[part.instance or part.gpu_uuid] = part
        try:
            self._hold(pods, self._collector.spool.runs)
        except OSError as error:
            self._collector.note("record_failed", None, str(error))

    def _gpu(self, seen: Seen) -> Gpu:
        gpu = self._gpus.get(seen.uuid)
        if gpu is None:
            gpu = self._gpus[seen.uuid] = Gpu(seen.uuid, seen.index, seen.model)
            for name in QUANTITIES:
                if name not in seen.values:
                    gpu.unsupported[name] = "not exported"
            self._collector.add_gpu(gpu)
        return gpu

    def _hold(self, pods: Mapping[tuple[str, str], dict[str, Held]], folder: Path) -> None:
        """Write the beginning and the end of runs, as pods come and go with their GPUs."""
        for pod, record in list(self._records.items()):
            if sorted(pods.get(pod, {})) != sorted(h.instance or h.gpu_uuid for h in record.gpus):
                record.ended_at, record.ended_by = records.now(), "pod"
                record.save(folder)
                del self._records[pod]
        for pod, parts in pods.items():
            if pod not in self._records:
                self._records[pod] = record = self._begin(*pod, parts.values())
                record.save(folder)

    def _begin(self, namespace: str, name: str, gpus: Iterable[Held]) -> Record:
        from os import getpid

        host = self._collector.host
        return Record(
            record_id=f"{host}-{time.time_ns() // 1000:x}-{records.slug(name)}",
            run_id=run_id(namespace, name),
            name=name,
            owner=namespace,
            host=host,
            started_at=records.now(),
            gpus=list(gpus),
            kubernetes={"namespace": namespace, "pod": name},
            pid=getpid(),
            pid_started=started_at(getpid()) or "",
            readings=str(self._collector.spool.root.resolve()),
        )


def _values(found: Mapping[str, Any]) -> Values:
    return tuple(found.get(name) for name in QUANTITIES)
