"""What a DCGM exporter says: the GPUs in its `/metrics`, and the pods that hold them.

For nodes where an exporter runs already (Kubernetes, mostly). Whether DCGM's power is a moment's or
an average depends on the GPU and is not exported: its source counts as unknown, and the energy
counter is used first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wattledger.readings import Held

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

_SLICES, _SLICES_A30 = 7, 4
"""Compute slices of a whole GPU."""


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
    uuid, index = labels.get("UUID", ""), labels.get("gpu", "")
    if not uuid or not index.isdigit():
        return None
    host = labels.get("Hostname") or labels.get("instance", "").rpartition(":")[0]
    return uuid, int(index), labels.get("modelName", ""), host


def identify_pod(labels: Mapping[str, str], run_label: str) -> tuple[str, str] | None:
    """Namespace and name of the run that a series belongs to; None where no pod holds the GPU."""
    pod = labels.get(run_label) or labels.get("pod") or labels.get("pod_name", "")
    namespace = labels.get("namespace") or labels.get("pod_namespace", "")
    return (namespace, pod) if pod else None


def make_held(labels: Mapping[str, str], uuid: str, index: int, model: str) -> Held:
    """The GPU, or the MIG instance that the labels name, as a share by its compute slices."""
    instance, profile = labels.get("GPU_I_ID", ""), labels.get("GPU_I_PROFILE", "")
    slices = profile.partition("g.")[0]
    if not instance or not slices.isdigit():
        return Held(uuid, index, model)
    whole = _SLICES_A30 if "A30" in model else _SLICES
    share_ppm = min(int(slices), whole) * 1_000_000 // whole
    return Held(uuid, index, model, share_ppm, f"{uuid}/{instance}")


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
            if quantity not in gpu.values or not sample.labels.get("GPU_I_ID"):
                gpu.values[quantity] = round(sample.value * factor)
            if (pod := identify_pod(sample.labels, run_label)) is not None:
                gpu.pods[pod] = make_held(sample.labels, uuid, index, model)
    return [gpus[uuid] for uuid in sorted(gpus)]
