"""The collector of a node: reads every GPU at a steady pace and keeps the readings.

Threads: *lanes* ask the driver, the main thread stores what they found. A lane whose call hangs
keeps that one GPU and loses the others to a new lane, so one bad GPU never silences the rest.
Nothing here imports more than the standard library and pynvml.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from wattledger.collect.clock import Clock
from wattledger.config import Config
from wattledger.meters.nvml import Driver, DriverGone, DriverMissing, Gpu, GpuLost, Values
from wattledger.process import child_environment, module_command
from wattledger.runs import records
from wattledger.spool.spool import Event, HostEnergy, Journal, Spool, default_root, hostname

BUSY, DISK, NO_DRIVER = 4, 5, 7
"""Exit codes: another collector runs here; readings could not be written; no GPU to read."""

_TICK_S = 0.5
_FIRST_S = 0.05
"""Time for a sweep: then the first readings are stored."""
_HOST_PERIOD_S = 1.0
"""CPU and memory are read so often, and stored once per flush."""
_DEAD_SWEEPS = 5
"""A GPU that answers nothing so often in a row is treated as lost."""


class Lane(threading.Thread):
    """Reads some GPUs, one after the other, period after period."""

    def __init__(self, collector: Collector, gpus: list[Gpu], due: float) -> None:
        super().__init__(daemon=True)
        self.gpus = gpus
        self.asking: tuple[Gpu, float] | None = None
        """The GPU being asked and since when, on the monotonic clock."""
        self.noted: tuple[Gpu, float] | None = None
        """The question whose silence has been noted."""
        self._collector = collector
        self._due = due
        self._silent: dict[str, int] = {}
        self._failing: dict[str, dict[str, str]] = {}
        self._again: dict[str, float] = {}

    def run(self) -> None:
        collector, period = self._collector, self._collector.config.period_s
        while not collector.stopping and self in collector.lanes:
            gpus = self.gpus
            for gpu in gpus:
                if self.gpus is not gpus:
                    # A call took too long: the others went to another lane, this GPU stays.
                    break
                self._visit(gpu)
            collector.clock_check()
            self._due += period
            late = time.monotonic() - self._due
            if late > 0:
                missed = int(late / period)
                collector.missed += missed * len(self.gpus)
                self._due += missed * period
            wait = self._due - time.monotonic()
            if wait > 0:
                collector.stop_event.wait(wait) if wait > _TICK_S else time.sleep(wait)

    def _visit(self, gpu: Gpu) -> None:
        collector = self._collector
        again = self._again.get(gpu.uuid)
        if again is not None and time.monotonic() < again:
            return
        began = time.monotonic_ns()
        self.asking = (gpu, began / 1e9)
        try:
            if again is not None:
                gpu.find_again()
                del self._again[gpu.uuid]
                collector.note("gpu_back", gpu, "it answers again")
                began = time.monotonic_ns()
            if not gpu.probed:
                gpu.probe()
                began = time.monotonic_ns()
            values = gpu.read()
        except GpuLost as error:
            if again is None:
                collector.note("gpu_lost", gpu, str(error))
            self._again[gpu.uuid] = time.monotonic() + collector.config.retry_s
            return
        except DriverGone as error:
            collector.driver_gone(str(error))
            return
        except Exception as error:
            # Whatever it is, it must not end this lane: the GPU rests, the others go on.
            collector.note("read_failed", gpu, repr(error))
            self._again[gpu.uuid] = time.monotonic() + collector.config.retry_s
            return
        finally:
            self.asking = None
        ended = time.monotonic_ns()
        if ended - began > collector.patience_s * 1e9:
            collector.note("slow_call", gpu, f"answered after {(ended - began) / 1e9:.3f} s")
        if all(value is None for value in values):
            self._silent[gpu.uuid] = silent = self._silent.get(gpu.uuid, 0) + 1
            if silent == _DEAD_SWEEPS:
                collector.note("gpu_lost", gpu, "it answers nothing")
                self._again[gpu.uuid] = time.monotonic() + collector.config.retry_s
            return
        self._silent.pop(gpu.uuid, None)
        if gpu.failing != self._failing.get(gpu.uuid, {}):
            self._failing[gpu.uuid] = gpu.failing
            what = ", ".join(f"{name}: {why}" for name, why in gpu.failing.items())
            collector.note("read_error", gpu, what or "all quantities answer again")
        # The driver answers somewhere between the two moments: their middle is off by half at most.
        collector.keep(gpu, (began + ended) // 2, values)


class Collector:
    """One per host; `run` returns when it is told to stop."""

    def __init__(self, config: Config, say: Callable[[str], None]) -> None:
        self.config = config
        self.host = config.host or hostname()
        self.spool = Spool(Path(config.spool) if config.spool else default_root(), self.host)
        self.driver = Driver()
        self.lanes: list[Lane] = []
        self.stopping = False
        self.stop_event = threading.Event()
        self.missed = 0
        self.patience_s = max(0.2, config.period_s)
        self._say = say
        self._gpus: list[Gpu] = []
        self._clock = Clock()
        # Lanes append at one end while the main thread takes from the other.
        self._readings: deque[tuple[Gpu, int, Values]] = deque()
        self._events: deque[Event] = deque()
        self._host_energy: deque[HostEnergy] = deque()
        self._journal: Journal | None = None
        self._journal_began = 0.0
        self._sealers: list[subprocess.Popen[bytes]] = []
        self._host_meter: subprocess.Popen[str] | None = None
        self._gone: str | None = None
        self._reopening: threading.Thread | None = None
        self._reopen_at = 0.0
        self._full: str | None = None
        self._total = 0
        self._stored_us = 0
        self._thinned = 0
        self._spool_bytes = 0
        self._warned: dict[tuple[str, str | None], int] = {}
        self._active = records.Active(self.spool.runs, self.host)

    # What lanes call.

    def keep(self, gpu: Gpu, monotonic_ns: int, values: Values) -> None:
        self._readings.append((gpu, self._clock.at_us(monotonic_ns), values))

    def add_gpu(self, gpu: Gpu) -> None:
        """List a GPU that was not known at the start."""
        self._gpus = [*self._gpus, gpu]

    def note(self, event: str, gpu: Gpu | None, detail: str) -> None:
        """Record an event as data, and say it."""
        at = self._clock.at_us(time.monotonic_ns())
        self._events.append((at, gpu.uuid if gpu else None, event, detail))
        key = (event, gpu.uuid if gpu else None)
        self._warned[key] = seen = self._warned.get(key, 0) + 1
        if event not in _QUIET and seen <= 3:
            which = f" GPU {gpu.index} ({gpu.uuid})" if gpu else ""
            more = " (not said again)" if seen == 3 else ""
            self._say(f"{event.replace('_', ' ')}{which}: {detail}{more}")

    def driver_gone(self, reason: str) -> None:
        if self._gone is None:
            self._gone = reason
            self._reopen_at = time.monotonic() + min(1.0, self.config.retry_s)
            self.note("driver_lost", None, reason)
            self.lanes = []

    def clock_check(self) -> None:
        if jumped := self._clock.check():
            self.note("clock_step", None, f"the wall clock went {jumped / 1e6:.3f} s ahead")

    # The main thread.

    def run(self) -> int:
        """Collect until told to stop; returns the exit code."""
        try:
            self.spool.create()
            taken = self.spool.take()
        except OSError as error:
            self._say(
                f"can't write the spool {self.spool.folder}: {error}. Name another with --spool"
            )
            return DISK
        if not taken:
            pid = self.spool.status().get("pid", "unknown")
            self._say(f"another collector runs on {self.host} (pid {pid}); it goes on")
            return BUSY
        before = self.spool.status()
        last = int(before.get("stored_until_us", 0))
        self._active = records.Active(self.spool.runs, self.host, before.get("runs_alive"))
        # Readings that exist are in the past, even if somebody set the clock back since.
        self._clock = Clock(not_before_us=last + 1)
        if self.config.dcgm_url:
            return self._collect("")
        missing = "the driver answers, but lists no GPU that this process may use"
        try:
            self._gpus = self.driver.open()
        except DriverMissing as error:
            missing = (
                f"no NVIDIA driver answers here ({error}). GPUs are read through NVML, "
                "which comes with the driver; nvidia-smi should list them"
            )
        if not self._gpus and self.config.gpus_required:
            self._say(missing)
            return NO_DRIVER
        return self._collect("" if self._gpus else missing)

    def _collect(self, missing: str) -> int:
        wake, signalled = os.pipe()
        os.set_blocking(signalled, False)
        signal.set_wakeup_fd(signalled)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        # A lane waiting for the interpreter waits no longer than this.
        sys.setswitchinterval(0.001)
        if missing:
            self.note("no_gpu", None, missing)
        for index, reason in self.driver.refused.items():
            self.note("gpu_refused", None, f"GPU {index} can't be used: {reason}")
        meter = self.config.dcgm_url or f"{len(self._gpus)} GPUs"
        self.note("started", None, f"{meter}, every {self.config.period_s:g} s")
        if left := self.spool.left_over():
            self.note("recovered", None, f"{len(left)} journals of a collector that was killed")
            self._seal(left)
        exporter = None
        if self.config.dcgm_url:
            from wattledger.meters.dcgm import Exporter

            exporter = Exporter(self, self.config.dcgm_url, self.config.run_label)
            exporter.start()
        elif self._gpus:
            self._start_lanes(self._gpus)
        if self.config.host_meter:
            self._start_host_meter()
        flush_at = time.monotonic() + _FIRST_S
        idle_since = time.monotonic()
        while not self.stopping:
            wait = min(_TICK_S, max(0.0, flush_at - time.monotonic()))
            if select.select([wake], [], [], wait)[0]:
                os.read(wake, 512)
            self._watch()
            if self._active.changed():
                # A run began or ended: store up to the reading after that moment.
                flush_at = min(flush_at, time.monotonic() + self.config.period_s + _FIRST_S)
            self._active.look()
            if time.monotonic() >= flush_at:
                flush_at = time.monotonic() + self.config.flush_s
                self._flush()
            if self._active.any():
                idle_since = time.monotonic()
            linger = self.config.linger_s
            if linger is not None and time.monotonic() - idle_since > linger:
                self.stopping = True
        if exporter is not None:
            self.stop_event.set()
            exporter.join(timeout=self.patience_s)
        return self._finish()

    def _stop(self, number: int, frame: object) -> None:
        # No more than this: a handler may interrupt anything, also what it would call.
        self.stopping = True

    def _start_lanes(self, gpus: list[Gpu]) -> None:
        lane = Lane(self, gpus, time.monotonic())
        self.lanes = [lane]
        lane.start()

    def _watch(self) -> None:
        """Free the GPUs that wait behind a call that hangs; bring a lost driver back."""
        for lane in list(self.lanes):
            asking, gpus = lane.asking, lane.gpus
            if asking is None or asking == lane.noted:
                continue
            gpu, since = asking
            if time.monotonic() - since <= self.patience_s:
                continue
            lane.noted = asking
            self.note("hung_call", gpu, f"no answer for {self.patience_s:g} s; the others go on")
            if rest := [other for other in gpus if other is not gpu]:
                lane.gpus = [gpu]
                freed = Lane(self, rest, time.monotonic())
                self.lanes.append(freed)
                freed.start()
        if self._gone and self._reopening is None and time.monotonic() >= self._reopen_at:
            # In a thread: a driver that is half there may not answer at all.
            self._reopening = threading.Thread(target=self._reopen, daemon=True)
            self._reopening.start()

    def _reopen(self) -> None:
        try:
            self.driver.close()
            gpus = self.driver.open()
        except DriverMissing:
            gpus = []
        self._reopen_at = time.monotonic() + self.config.retry_s
        self._reopening = None
        if gpus and not self.stopping:
            self._gpus, self._gone = gpus, None
            self.note("driver_back", None, f"{len(gpus)} GPUs, driver {self.driver.version}")
            self._start_lanes(gpus)

    # Storing.

    def _flush(self) -> None:
        """Store what has been read; what can't be stored is kept and tried again."""
        self._reap()
        readings, events = _taken(self._readings), _taken(self._events)
        host = _merged(_taken(self._host_energy))
        try:
            self._check_room()
            if self._journal is None:
                self._begin()
            assert self._journal is not None
            now = self._clock.at_us(time.monotonic_ns())
            offset = (now, self._clock.offset_us)
            self._journal.add(self._gpus_of(readings), readings, events, host, offset)
        except (sqlite3.Error, OSError) as error:
            self._readings.extendleft(reversed(readings))
            self._events.extendleft(reversed(events))
            self._host_energy.extendleft(reversed(host))
            self._close_journal()
            if self._full is None:
                self._full = str(error)
                self.note("spool_full", None, f"{error}; readings wait in memory")
            self._thin()
        else:
            self._total += len(readings)
            self._stored_us = max([self._stored_us, now, *(ts for _, ts, _ in readings[-64:])])
            if self._full is not None:
                self._full = None
                self.note("spool_writable", None, f"{len(readings)} waiting readings were stored")
            if time.monotonic() - self._journal_began >= self.config.segment_s:
                self._close_journal()
                self._seal(self.spool.left_over())
        self.spool.say(self._status("collecting"))

    def _gpus_of(self, readings: list[tuple[Gpu, int, Values]]) -> list[Gpu]:
        """GPUs of these readings and of now: after a driver reload they differ."""
        now = [gpu for gpu in self._gpus if gpu.probed]
        return list({id(gpu): gpu for gpu in [*now, *(r[0] for r in readings)]}.values())

    def _check_room(self) -> None:
        self._spool_bytes = self.spool.bytes()
        if self._spool_bytes > self.config.max_spool_mib << 20:
            raise OSError(
                f"the spool {self.spool.folder} holds {self._spool_bytes >> 20} MiB, its limit is "
                f"{self.config.max_spool_mib} MiB: fetch and delete finished segments"
            )

    def _begin(self) -> None:
        meta = {
            "host": self.host,
            "meter": self.config.dcgm_url or "NVML",
            "collector_version": _version(),
            "driver_version": self.driver.version,
            "period_ms": round(self.config.period_s * 1000),
        }
        self._journal = self.spool.begin(meta, self._clock.at_us(time.monotonic_ns()))
        self._journal_began = time.monotonic()

    def _close_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _thin(self) -> None:
        """Keep memory bounded: leave out every second reading of each GPU.

        Where a GPU has an energy counter no energy is lost by this, only detail.
        """
        while len(self._readings) > self.config.max_buffer:
            seen: dict[int, int] = {}
            kept = []
            waiting = _taken(self._readings)
            for reading in waiting:
                seen[id(reading[0])] = number = seen.get(id(reading[0]), -1) + 1
                if number % 2 == 0:
                    kept.append(reading)
            self._readings.extendleft(reversed(kept))
            self._thinned += len(waiting) - len(kept)
            self.note("thinned", None, f"{len(waiting) - len(kept)} waiting readings left out")
        for queue in (self._events, self._host_energy):
            while len(queue) > self.config.max_buffer:
                queue.popleft()

    def _seal(self, journals: list[Path]) -> None:
        mine = self._journal.path if self._journal else None
        ready = [str(path) for path in journals if path != mine]
        if ready and not self._sealers:
            command = module_command("wattledger.spool.seal", *ready)
            self._sealers.append(subprocess.Popen(command, env=child_environment()))

    def _reap(self) -> None:
        for sealer in [s for s in self._sealers if s.poll() is not None]:
            self._sealers.remove(sealer)
            if sealer.returncode:
                self.note("seal_failed", None, f"exit code {sealer.returncode}; journals stay")

    def _wait_for_sealers(self) -> None:
        for sealer in self._sealers:
            sealer.wait()
        self._reap()

    # The rest of the host.

    def _start_host_meter(self) -> None:
        self._host_meter = subprocess.Popen(
            module_command("wattledger.meters.host", str(_HOST_PERIOD_S)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(),
            start_new_session=True,
        )
        self._host_reader = threading.Thread(target=self._listen, daemon=True)
        self._host_reader.start()

    def _listen(self) -> None:
        """Take what the host meter says, line by line, until it ends."""
        meter = self._host_meter
        assert meter is not None
        assert meter.stdout is not None
        for line in meter.stdout:
            said = json.loads(line)
            if "warning" in said:
                self.note("host_meter", None, said["warning"])
                continue
            at = self._clock.at_us(said["monotonic_ns"])
            self._host_energy.append((at, *(said[name] for name in _HOST_FIELDS)))
        if not self.stopping:
            self.note("host_meter", None, f"it ended with exit code {meter.wait()}")

    def _finish(self) -> int:
        """Store everything, seal, and say what happened."""
        self.stop_event.set()
        lanes, self.lanes = self.lanes, []
        for lane in lanes:
            lane.join(timeout=self.patience_s)
        if self._host_meter and self._host_meter.stdin:
            # Its input ends: it measures once more and ends.
            self._host_meter.stdin.close()
            self._host_reader.join(timeout=2)
            self._host_meter.kill()
        self._wait_for_sealers()
        self.note(
            "stopped", None, f"{self._total + len(self._readings)} readings, {self.missed} missed"
        )
        self._flush()
        lost = len(self._readings)
        self._close_journal()
        self._seal(self.spool.left_over())
        self._wait_for_sealers()
        self.spool.say(self._status("stopped"))
        if not any(lane.is_alive() for lane in lanes) and self._reopening is None:
            self.driver.close()
        if lost:
            self._say(f"{lost} readings could not be stored ({self._full}) and are lost")
            return DISK
        return 0

    def _status(self, state: str) -> dict[str, Any]:
        return {
            "state": state,
            "pid": os.getpid(),
            "host": self.host,
            "driver_version": self.driver.version,
            "period_s": self.config.period_s,
            "gpus": [gpu.as_json() for gpu in self._gpus],
            "readings_stored": self._total,
            "stored_until_us": self._stored_us,
            "readings_waiting": len(self._readings),
            "readings_missed": self.missed,
            "readings_thinned": self._thinned,
            "spool_bytes": self._spool_bytes,
            "spool_problem": self._full,
            "driver_problem": self._gone,
            "clock_offset_us": self._clock.offset_us,
            "runs_active": sorted(self._active.ids()),
            "runs_alive": self._active.alive,
        }


_HOST_FIELDS = ("span_us", "component", "energy_mj", "is_modelled", "method")


def _taken(queue: deque[Any]) -> list[Any]:
    """All that is in the queue now, taken out of it."""
    return [queue.popleft() for _ in range(len(queue))]


def _merged(intervals: list[HostEnergy]) -> list[HostEnergy]:
    """One interval per component and method: its energies summed, up to its last moment."""
    merged: dict[tuple[str, bool, str], HostEnergy] = {}
    for at, span, component, energy, modelled, method in intervals:
        _, span_before, _, energy_before, _, _ = merged.get(
            (component, modelled, method), (0, 0, component, 0, modelled, method)
        )
        merged[component, modelled, method] = (
            at,
            span_before + span,
            component,
            energy_before + energy,
            modelled,
            method,
        )
    return list(merged.values())


_QUIET = {"started", "stopped", "recovered", "slow_call"}


def _version() -> str:
    from wattledger import __version__

    return __version__


def main(config: Config, say: Callable[[str], None] | None = None) -> int:
    """Collect with this configuration, in this process; returns the exit code."""

    def to_stderr(text: str) -> None:
        print(f"wattledger: {text}", file=sys.stderr, flush=True)

    return Collector(config, say or to_stderr).run()


def run_as_command() -> NoReturn:
    """Collect with the configuration that the command line gives as JSON."""
    code = main(Config.from_json(sys.argv[1] if len(sys.argv) > 1 else "{}"))
    sys.stdout.flush()
    # A call that hangs in the driver must not keep the process from ending.
    os._exit(code)


if __name__ == "__main__":
    run_as_command()
