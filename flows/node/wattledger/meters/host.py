"""CPU and memory of this host by codecarbon's hardware tracking: `python -m wattledger.meters.host SECONDS`.

It runs as a process beside the collector, because codecarbon imports pandas. It prints a line of JSON
per component and interval until its input ends. No network, no location, no telemetry: only
codecarbon's meters are used. CPU: RAPL where it can be read, else the load model on the CPU's TDP.
Memory: codecarbon's model by number of modules (it does not read RAPL's memory domains per socket).
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_RAPL = "/sys/class/powercap/intel-rapl/subsystem"


@dataclass
class Meter:
    """One component, and how codecarbon measures it."""

    component: str
    hardware: Any
    is_modelled: bool
    method: str

    def measure_mj(self, seconds: float) -> int | None:
        """Energy in mJ since the last call, `seconds` ago; None where a counter gave nothing."""
        _, energy = self.hardware.measure_power_and_energy(seconds)
        millijoules = round(energy.kWh * 3.6e9)
        return millijoules if millijoules > 0 else None


def start_meters(rapl_dir: str = _RAPL) -> list[Meter]:
    """The best meters of this host, started."""
    # Inside a job codecarbon would take the job's memory for the host's.
    os.environ.pop("SLURM_JOB_ID", None)
    logging.getLogger("codecarbon").disabled = True
    from codecarbon.core import cpu
    from codecarbon.external.hardware import CPU, MODE_CPU_LOAD
    from codecarbon.external.ram import RAM

    if sys.platform == "linux" and cpu.is_rapl_available(rapl_dir):
        processor = CPU(".", "intel_rapl", "", 0, rapl_dir=rapl_dir)
        cpu_meter = Meter("cpu", processor, False, "RAPL")
    else:
        tdp = cpu.TDP()
        watts = tdp.tdp or 85
        processor = CPU(".", MODE_CPU_LOAD, tdp.model, watts)
        method = f"codecarbon load model, TDP {watts:g} W ({tdp.model})"
        cpu_meter = Meter("cpu", processor, True, method)
    processor.start()
    memory = RAM(tracking_mode="machine")
    method = f"codecarbon memory model, {memory.machine_memory_GB:.0f} GiB"
    return [cpu_meter, Meter("dram", memory, True, method)]


def measure(meters: list[Meter], period_s: float) -> Iterator[dict[str, Any]]:
    """Energy of each meter, period after period, until standard input ends."""
    last = time.monotonic_ns()
    ended = False
    while not ended:
        wait = max(0.0, last / 1e9 + period_s - time.monotonic())
        ended = bool(select.select([sys.stdin], [], [], wait)[0])
        now = time.monotonic_ns()
        for meter in meters:
            energy = meter.measure_mj((now - last) / 1e9)
            if energy is not None:
                yield {
                    "monotonic_ns": now,
                    "span_us": (now - last) // 1000,
                    "component": meter.component,
                    "energy_mj": energy,
                    "is_modelled": meter.is_modelled,
                    "method": meter.method,
                }
        last = now


def main(period_s: float) -> int:
    try:
        meters = start_meters()
    except Exception as error:  # codecarbon raises whatever its parts raise
        print(json.dumps({"warning": f"CPU and memory are not measured: {error}"}), flush=True)
        return 1
    for interval in measure(meters, period_s):
        print(json.dumps(interval), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
