"""A lane: a thread that asks the driver for the readings of some GPUs, period after period.

A call to the driver may hang. Then its lane keeps that one GPU, and the collector gives the others to
a new lane.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

from wattledger.collect.sink import Sink
from wattledger.config import Config
from wattledger.meters.nvml import DriverGone, GpuLost, NvmlGpu
from wattledger.readings import Values

_DEAD_SWEEPS = 5
"""A GPU that answers nothing so often in a row is treated as lost."""
_SHORT_WAIT_S = 0.5
"""Up to this a lane sleeps, which is steadier than waiting for an event."""


class LaneSink(Sink, Protocol):
    """What lanes tell the collector besides."""

    def count_missed(self, readings: int) -> None:
        """Count readings that were due and not taken."""

    def lose_driver(self, reason: str) -> None:
        """The driver is gone: it has to be opened anew, and all lanes end."""


class Lane(threading.Thread):
    """Reads some GPUs, one after the other, period after period."""

    def __init__(self, sink: LaneSink, config: Config, gpus: list[NvmlGpu], due: float) -> None:
        super().__init__(daemon=True)
        self.gpus = gpus
        self.asking: tuple[NvmlGpu, float] | None = None
        """The GPU being asked and since when, on the monotonic clock."""
        self.noted: tuple[NvmlGpu, float] | None = None
        """The call whose silence has been noted."""
        self.retired = False
        """Set to end the lane after the sweep it is in."""
        self._sink, self._config = sink, config
        self._due = due
        self._silent_sweeps: dict[str, int] = {}
        self._failing: dict[str, dict[str, str]] = {}
        self._retry_at: dict[str, float] = {}

    def run(self) -> None:
        while not self._sink.stopping and not self.retired:
            gpus = self.gpus
            for gpu in gpus:
                if self.gpus is not gpus:
                    # A call took too long: the others went to another lane, this GPU stays.
                    break
                self._visit(gpu)
            self._sink.check_clock()
            self._wait_for_next_sweep()

    def _wait_for_next_sweep(self) -> None:
        period = self._config.period_s
        self._due += period
        late = time.monotonic() - self._due
        if late > 0:
            missed = int(late / period)
            self._sink.count_missed(missed * len(self.gpus))
            self._due += missed * period
        wait = self._due - time.monotonic()
        if wait > _SHORT_WAIT_S:
            self._sink.wait(wait)
        elif wait > 0:
            time.sleep(wait)

    def _visit(self, gpu: NvmlGpu) -> None:
        """Read a GPU, unless it rests; whatever goes wrong, the others go on."""
        retry_at = self._retry_at.get(gpu.uuid)
        if retry_at is not None and time.monotonic() < retry_at:
            return
        try:
            began_ns, values = self._ask(gpu)
        except GpuLost as error:
            if retry_at is None:
                self._sink.note("gpu_lost", gpu, str(error))
            self._rest(gpu)
        except DriverGone as error:
            self._sink.lose_driver(str(error))
        except Exception as error:
            # Whatever it is, it must not end this lane: the GPU rests, the others go on.
            self._sink.note("read_failed", gpu, repr(error))
            self._rest(gpu)
        else:
            self._take(gpu, began_ns, time.monotonic_ns(), values)

    def _ask(self, gpu: NvmlGpu) -> tuple[int, Values]:
        """When the driver was asked, on the monotonic clock, and its answer."""
        began_ns = time.monotonic_ns()
        self.asking = (gpu, began_ns / 1e9)
        try:
            if gpu.uuid in self._retry_at:
                gpu.find_again()
                del self._retry_at[gpu.uuid]
                self._sink.note("gpu_back", gpu, "it answers again")
                began_ns = time.monotonic_ns()
            if not gpu.probed:
                gpu.probe()
                began_ns = time.monotonic_ns()
            return began_ns, gpu.read()
        finally:
            self.asking = None

    def _take(self, gpu: NvmlGpu, began_ns: int, ended_ns: int, values: Values) -> None:
        """Keep an answer, and note what is odd about it."""
        if ended_ns - began_ns > self._config.patience_s * 1e9:
            seconds = (ended_ns - began_ns) / 1e9
            self._sink.note("slow_call", gpu, f"answered after {seconds:.3f} s")
        if all(value is None for value in values):
            self._silent_sweeps[gpu.uuid] = silent = self._silent_sweeps.get(gpu.uuid, 0) + 1
            if silent == _DEAD_SWEEPS:
                self._sink.note("gpu_lost", gpu, "it answers nothing")
                self._rest(gpu)
            return
        self._silent_sweeps.pop(gpu.uuid, None)
        if gpu.failing != self._failing.get(gpu.uuid, {}):
            self._failing[gpu.uuid] = gpu.failing
            reasons = ", ".join(f"{name}: {why}" for name, why in gpu.failing.items())
            self._sink.note("read_error", gpu, reasons or "all quantities answer again")
        # The driver answers somewhere between the two moments: their middle is off by half at most.
        self._sink.keep(gpu, (began_ns + ended_ns) // 2, values)

    def _rest(self, gpu: NvmlGpu) -> None:
        """Leave a GPU alone for a while."""
        self._retry_at[gpu.uuid] = time.monotonic() + self._config.retry_s
