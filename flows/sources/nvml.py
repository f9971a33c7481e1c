"""Readings straight from the driver, through `pynvml` (from the distribution nvidia-ml-py).

The one place that imports pynvml. Values a GPU does not support are null, never zero.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import polars as pl

from flows.sources.segments import COLUMNS


def available() -> bool:
    """Whether this machine has an NVIDIA driver that answers, and at least one GPU."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return False
    try:
        return int(pynvml.nvmlDeviceGetCount()) > 0
    finally:
        pynvml.nvmlShutdown()


def sample(
    seconds: float, period_s: float = 0.2, progress: Callable[[float], None] = lambda done: None
) -> pl.DataFrame:
    """Read every GPU of this machine for a while; gives the columns of a segment, in order.

    Raises:
        pynvml.NVMLError: the driver does not answer at all.
    """
    import pynvml

    pynvml.nvmlInit()
    try:
        host = socket.gethostname()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        identities = [
            (_text(pynvml.nvmlDeviceGetUUID(h)), host, i, _text(pynvml.nvmlDeviceGetName(h)))
            for i, h in enumerate(handles)
        ]
        rows = []
        begin = time.monotonic()
        # Wall time is read once and carried on monotonically: a clock step can't reorder readings.
        epoch_us = time.time_ns() // 1000
        ends = begin + seconds
        due = begin
        while (now := time.monotonic()) < ends:
            for handle, identity in zip(handles, identities, strict=True):
                at = epoch_us + round((time.monotonic() - begin) * 1e6)
                rows.append((*identity, datetime.fromtimestamp(at / 1e6, UTC), *_values(handle)))
            progress(now - begin)
            due += period_s
            time.sleep(max(0.0, due - time.monotonic()))
    finally:
        pynvml.nvmlShutdown()
    return pl.DataFrame(rows, schema=COLUMNS, orient="row").sort("gpu_uuid", "ts")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _values(handle: Any) -> tuple[int | None, ...]:
    import pynvml

    def ask(question: Callable[[], Any]) -> int | None:
        try:
            return int(question())
        except pynvml.NVMLError:
            return None

    return (
        ask(lambda: pynvml.nvmlDeviceGetPowerUsage(handle)),
        ask(lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)),
        ask(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu),
        ask(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle).used >> 20),
        ask(lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)),
        ask(lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)),
        "unknown",  # type: ignore[return-value]
    )
