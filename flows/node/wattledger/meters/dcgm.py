"""What a DCGM exporter says: the GPUs in its `/metrics`, and the pods that hold them.

For nodes where an exporter runs already (Kubernetes, mostly). Whether DCGM's power is a moment's or
an average depends on the GPU and is not exported: its source counts as unknown, and the energy
counter is used first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from wattledger.readings import Held

POWER, ENERGY = "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
LIMIT = "DCGM_FI_DEV_POWER_MGMT_LIMIT"
_METRICS = {
    POWER: ("power_mw", 1000),
    ENERGY: ("energy_mj", 1),
    "DCGM_FI_DEV_GPU_UTIL": ("util_pct", 1),
    "DCGM_FI_DEV_FB_USED": ("mem_used_mib", 1),
    "DCGM_FI_DEV_GPU_TEMP": ("temp_c", 1),
    "DCGM_FI_DEV_MEMORY_TEMP": ("mem_temp_c", 1),
    "DCGM_FI_DEV_SM_CLOCK": ("sm_clock_mhz", 1),
    LIMIT: ("power_limit_mw", 1000),
}
"""Metric -> quantity, and what to multiply it with."""

_SLICES = 7
"""Compute slices of a whole GPU."""
_FEWER_SLICES = {"A30": 4, "A30X": 4, "RTX PRO 6000": 4}
"""Boards that have fewer (NVIDIA MIG user guide, "Supported MIG profiles")."""
_PROFILE = re.compile(r"(?:(\d+)c\.)?(\d+)g\.\d+gb")
"""A MIG profile: compute instance (if it is smaller than its GPU instance), GPU instance, memory."""

_INT32_BLANK, _INT64_BLANK, _FP64_BLANK = 0x7FFFFFF0, 0x7FFFFFFFFFFFFFF0, 140737488355328.0
_KINDS = 4
"""Blank, not found, not supported, not permitted: the blank value and the three after it (dcgm_structs.h)."""
_UNSIGNED = (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF, 0x7FFFFFFF)
FP64_EDGE = 9.2e18
"""A float cannot tell the values of 64 bits above it apart: all of them are blanks."""
BLANKS = frozenset(
    [-1.0, *map(float, _UNSIGNED)]
    + [float(blank + kind) for blank in (_INT32_BLANK, _FP64_BLANK) for kind in range(_KINDS)]
)
"""Values by which DCGM, NVML and those who read them say that there is none."""

_OWN = "dcgm-exporter"
"""Part of the name of the exporter's own pod and container, as its chart and the GPU operator call them."""
_OWN_CONTAINER = "exporter"
"""What the exporter's chart calls its container, however the pod is called."""


def is_blank(value: float) -> bool:
    """Whether a number stands for a value that is not there, as it is or after its unit was changed."""
    if not math.isfinite(value) or abs(value) >= FP64_EDGE:
        return True
    return any(x in BLANKS for x in (value, value / 1000, round(value * 1000, 3)))


@dataclass
class ScrapedGpu:
    """One GPU in one scrape."""

    uuid: str
    index: int
    model: str
    host: str
    values: dict[str, int] = field(default_factory=dict)
    pods: dict[tuple[str, str], Held] = field(default_factory=dict)
    """(namespace, run) -> what of the GPU it holds."""


def identify_gpu(labels: Mapping[str, str]) -> tuple[str, int, str, str] | None:
    """UUID, index, model and host of a series; None for one that is about no GPU."""
    uuid, index = labels.get("UUID") or labels.get("uuid", ""), labels.get("gpu", "")
    if not uuid or not (index.isascii() and index.isdigit()) or len(index) > _INDEX_DIGITS:
        return None
    return uuid, int(index), labels.get("modelName", ""), _identify_host(labels)


_INDEX_DIGITS = 4


def _identify_host(labels: Mapping[str, str]) -> str:
    """The node of a series.

    Exporters before 3.1.3 put the name of their own pod into `Hostname` (NVIDIA/dcgm-exporter
    pull 129): it is another one after each restart, so the node's own label counts then, or the
    address that was scraped.
    """
    host = labels.get("Hostname") or labels.get("hostname", "")
    pods = {labels.get("pod"), labels.get("exported_pod")}
    if host and host not in pods and _OWN not in host:
        return host
    for name in ("node", "node_name", "kubernetes_node", "nodename"):
        if labels.get(name):
            return labels[name]
    return labels.get("instance", "").rpartition(":")[0].strip("[]") or host


def identify_pod(
    labels: Mapping[str, str], run_label: str, own: Collection[str] = ()
) -> tuple[str, str] | None:
    """Namespace and name of the run that a series belongs to; None where no pod holds the GPU.

    Prometheus that does not honour the exporter's labels gives `pod` to the pod that it scrapes,
    the exporter's own, and renames what the exporter says to `exported_pod`. A GPU that nobody
    holds then has the exporter's pod alone, and that is no run.

    Args:
        labels: The labels of the series.
        run_label: The label that names the run, where it is not the pod.
        own: Pods of exporters, as other series tell (`find_own_pods`).
    """
    for name in dict.fromkeys((run_label, "pod", "pod_name")):
        exported = _list_exported(labels, name)
        for label in exported or [name]:
            prefix, pod = label.removesuffix(name), labels.get(label, "")
            container = labels.get(f"{prefix}container") or labels.get(f"{prefix}container_name")
            is_pod = name in ("pod", "pod_name")
            if not pod or (is_pod and (pod in own or _is_exporter(pod, container or ""))):
                continue
            space = "pod_namespace" if name == "pod_name" else "namespace"
            namespace = labels.get(prefix + space) or labels.get(space, "")
            return namespace, pod
        if exported:
            return None
    return None


def find_own_pods(series: Iterable[Mapping[str, str]]) -> set[str]:
    """The pods of exporters: `pod` of series whose exporter speaks of another one in `exported_pod`."""
    return {labels["pod"] for labels in series if "pod" in labels and _list_exported(labels, "pod")}


def _list_exported(labels: Mapping[str, str], name: str) -> list[str]:
    """The labels that Prometheus has renamed from `name`, the nearest first."""
    exported = (label for label in labels if re.fullmatch(f"(exported_)+{re.escape(name)}", label))
    return sorted(exported, key=len)


def _is_exporter(pod: str, container: str) -> bool:
    return _OWN in pod or _OWN in container or container == _OWN_CONTAINER


def make_held(labels: Mapping[str, str], uuid: str, index: int, model: str) -> Held | None:
    """The GPU, or the MIG instance that the labels name, as a share by its compute slices.

    Returns:
        None for an instance whose profile says no size: its share cannot be told.
    """
    instance, profile = labels.get("GPU_I_ID", ""), labels.get("GPU_I_PROFILE", "")
    if not instance and not profile:
        return Held(uuid, index, model)
    match = _PROFILE.match(profile.lower())
    if match is None or not instance:
        return None
    whole = next((n for name, n in _FEWER_SLICES.items() if _names_board(model, name)), _SLICES)
    slices = min(int(match[1] or match[2]), whole)
    if not slices:
        return None
    return Held(uuid, index, model, slices * 1_000_000 // whole, f"{uuid}/{instance}")


def _names_board(model: str, board: str) -> bool:
    return f" {board} " in f" {re.sub(r'[-_ ]+', ' ', model.upper())} "


def make_run_id(namespace: str, name: str) -> str:
    """The id of the run that a pod is."""
    return f"k8s-{namespace or 'default'}-{name}"


def parse_gpus(text: str, run_label: str = "pod") -> list[ScrapedGpu]:
    """The GPUs of an exposition, by UUID.

    Series of MIG instances repeat the values of their GPU, which count once.

    Args:
        text: the answer of `/metrics`.
        run_label: the label that names the run of a GPU.

    Raises:
        ValueError: the text is not in the exposition format of Prometheus.
    """
    from prometheus_client.parser import text_string_to_metric_families

    gpus: dict[str, ScrapedGpu] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            # The parser gives counters the suffix that OpenMetrics asks for.
            metric = sample.name.removesuffix("_total")
            if metric not in _METRICS or (identity := identify_gpu(sample.labels)) is None:
                continue
            uuid, index, model, host = identity
            gpu = gpus.setdefault(uuid, ScrapedGpu(uuid, index, model, host))
            quantity, factor = _METRICS[metric]
            # The GPU's own value replaces that of an instance.
            is_first = quantity not in gpu.values
            if (is_first or not sample.labels.get("GPU_I_ID")) and not is_blank(sample.value):
                gpu.values[quantity] = round(sample.value * factor)
            pod = identify_pod(sample.labels, run_label)
            held = make_held(sample.labels, uuid, index, model)
            if pod is not None and held is not None:
                gpu.pods[pod] = held
    return [gpus[uuid] for uuid in sorted(gpus)]
