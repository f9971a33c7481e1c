"""The collector of a node: reads every GPU at a steady pace and keeps the readings.

Threads: *lanes* ask the driver (or one thread an exporter), the main thread stores what they found. A
lane whose call hangs keeps that one GPU and loses the others to a new lane, so one bad GPU never
silences the rest. Nothing here imports more than the standard library and pynvml.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from wattledger import __version__
from wattledger.collect.buffer import Buffer
from wattledger.collect.clock import Clock
from wattledger.collect.host_meter import HostMeter
from wattledger.collect.lane import Lane
from wattledger.collect.storage import Storage
from wattledger.config import Config
from wattledger.meters.nvml import Driver, DriverMissing, NvmlGpu
from wattledger.process import pid_namespace, print_to_stderr, start_token
from wattledger.readings import Gpu, Values
from wattledger.runs.active import ActiveRuns
from wattledger.runs.fields import clean_text
from wattledger.spool.journal import Reading
from wattledger.spool.spool import RECORD_SEEN, Spool, default_root, hostname

if TYPE_CHECKING:
    from wattledger.collect.exporter import Exporter

BUSY, DISK, NO_DRIVER = 4, 5, 7
"""Exit codes: another collector runs here; readings could not be written; no GPU to read."""

_TICK_S = 0.5
"""The main thread looks around so often."""
_FIRST_S = 0.05
"""Time for a sweep: then the first readings are stored."""
_MOST_US = 1 << 53
"""Microseconds since 1970 beyond which no time is believed (the year 2255)."""
_MOST_REFUSED = 1000
"""Events about records that are left alone, until the collector is started again."""
_LOGGED_TIMES = 3
"""An event of one kind and GPU is reported so often; all are recorded."""
_UNREPORTED = {"started", "stopped", "recovered", "slow_call", RECORD_SEEN}
_HOST_FIELDS = ("span_us", "component", "energy_mj", "is_modelled", "method")


class Collector:
    """One per host; `run` returns when it is told to stop."""

    def __init__(self, config: Config, report: Callable[[str], None]) -> None:
        self.config = config
        self.host = config.host or hostname()
        self.spool = Spool(Path(config.spool) if config.spool else default_root(), self.host)
        self.stopping = False
        self._stop_event = threading.Event()
        self._report = report
        self._clock = Clock()
        self._buffer = Buffer()
        self._storage = Storage(self.spool, config)
        self._runs = ActiveRuns(self.spool.runs, self.host)
        self._event_counts: dict[tuple[str, str | None], int] = {}
        self._refused: set[str] = set()
        self._has_new_runs = False
        # What is read.
        self._driver = Driver()
        self._gpus: list[NvmlGpu] = []
        self._lanes: list[Lane] = []
        self._exporter: Exporter | None = None
        self._host_meter: HostMeter | None = None
        # While the driver is gone.
        self._driver_problem: str | None = None
        self._reopening: threading.Thread | None = None
        self._reopen_at = 0.0
        # For collector.json.
        self._spool_problem: str | None = None
        self._missed = 0
        self._stored = 0
        self._stored_until_us = 0
        self._thinned = 0

    # What the threads call that read: see Sink and LaneSink.

    def wait(self, seconds: float) -> None:
        self._stop_event.wait(seconds)

    def keep(self, gpu: Gpu, monotonic_ns: int, values: Values) -> None:
        self._buffer.readings.append((gpu, self._clock.at_us(monotonic_ns), values))

    def note(self, event: str, gpu: Gpu | None, detail: str) -> None:
        uuid = gpu.uuid if gpu else None
        self._buffer.events.append((self._clock.at_us(time.monotonic_ns()), uuid, event, detail))
        self._event_counts[event, uuid] = count = self._event_counts.get((event, uuid), 0) + 1
        if event not in _UNREPORTED and count <= _LOGGED_TIMES:
            which = f" GPU {gpu.index} ({gpu.uuid})" if gpu else ""
            more = " (not said again)" if count == _LOGGED_TIMES else ""
            self._report(f"{event.replace('_', ' ')}{which}: {detail}{more}")

    def _note_record(self, sentence: str) -> None:
        """Record that something in the users' folders is left alone, once; a flood of such is cut off."""
        if sentence not in self._refused and len(self._refused) < _MOST_REFUSED:
            self._refused.add(sentence)
            self.note("record_refused", None, clean_text(sentence))

    def _note_seen(self, sha256: str, uid: int) -> None:
        """Tell of a finished record in the segment, which is signed: nobody can invent one afterwards."""
        self.note(RECORD_SEEN, None, json.dumps({"sha256": sha256, "owner_uid": uid}))

    def check_clock(self) -> None:
        if jumped := self._clock.check():
            self.note("clock_step", None, f"the wall clock went {jumped / 1e6:.3f} s ahead")

    def count_missed(self, readings: int) -> None:
        self._missed += readings

    def lose_driver(self, reason: str) -> None:
        if self._driver_problem is None:
            self._driver_problem = reason
            self._reopen_at = time.monotonic() + min(1.0, self.config.retry_s)
            self.note("driver_lost", None, reason)
            self._retire_lanes()

    def _keep_host_energy(self, interval: dict[str, Any]) -> None:
        """Keep an interval as the host meter prints it."""
        at = self._clock.at_us(interval["monotonic_ns"])
        self._buffer.host.append((at, *(interval[name] for name in _HOST_FIELDS)))

    # The main thread.

    def run(self) -> int:
        """Collect until told to stop; returns the exit code."""
        try:
            self.spool.create()
            locked = self.spool.lock()
        except OSError as error:
            self._report(
                f"cannot write the spool {self.spool.folder}: {error}. Name another with --spool"
            )
            return DISK
        if not locked:
            pid = self.spool.read_status().get("pid", "unknown")
            self._report(f"another collector runs on {self.host} (pid {pid}); it goes on")
            return BUSY
        before = self.spool.read_status()
        self._runs = ActiveRuns(
            self.spool.runs,
            self.host,
            before.get("runs_alive"),
            self._note_record,
            self._note_seen,
        )
        # Readings that exist are in the past, even if somebody set the clock back since.
        stored_until_us = before.get("stored_until_us")
        known = isinstance(stored_until_us, int) and 0 < stored_until_us < _MOST_US
        self._clock = Clock(not_before_us=stored_until_us + 1 if known else 1)
        missing = "" if self.config.dcgm_url else self._open_driver()
        if missing and self.config.gpus_required:
            self._report(missing)
            return NO_DRIVER
        wake = self._catch_signals()
        # A lane waiting for the interpreter waits no longer than this.
        sys.setswitchinterval(0.001)
        self._note_start(missing)
        self._start_meters()
        self._store_until_stopped(wake)
        return self._finish()

    def _open_driver(self) -> str:
        """List the GPUs; returns why there are none, if there are none."""
        try:
            self._gpus = self._driver.open()
        except DriverMissing as error:
            return (
                f"no NVIDIA driver answers here ({error}). GPUs are read through NVML, "
                "which comes with the driver; nvidia-smi should list them"
            )
        if self._gpus:
            return ""
        return "the driver answers, but lists no GPU that this process may use"

    def _catch_signals(self) -> int:
        """Stop at the usual signals; returns a file that can be read when one came."""
        wake, signalled = os.pipe()
        os.set_blocking(signalled, False)
        signal.set_wakeup_fd(signalled)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        return wake

    def _stop(self, number: int, frame: object) -> None:
        # No more than this: a handler may interrupt anything, also what it would call.
        self.stopping = True

    def _note_start(self, missing: str) -> None:
        if missing:
            self.note("no_gpu", None, missing)
        for index, reason in self._driver.refused.items():
            self.note("gpu_refused", None, f"GPU {index} cannot be used: {reason}")
        meter = self.config.dcgm_url or f"{len(self._gpus)} GPUs"
        self.note("started", None, f"{meter}, every {self.config.period_s:g} s")
        if journals := self.spool.list_journals():
            self.note("recovered", None, f"{len(journals)} journals of a collector that was killed")
            self._storage.seal()

    def _start_meters(self) -> None:
        if self.config.dcgm_url:
            # HTTP and TLS are not for the other collectors to load.
            from wattledger.collect.exporter import Exporter

            self._exporter = Exporter(self, self.config, self.spool)
            self._exporter.start()
        elif self._gpus:
            self._start_lane(self._gpus)
        if self.config.host_meter:
            self._host_meter = HostMeter(self, self._keep_host_energy)

    def _store_until_stopped(self, wake: int) -> None:
        flush_at = time.monotonic() + _FIRST_S
        idle_since = time.monotonic()
        while not self.stopping:
            wait = min(_TICK_S, max(0.0, flush_at - time.monotonic()))
            if select.select([wake], [], [], wait)[0]:
                os.read(wake, 512)
            self._free_waiting_gpus()
            self._reopen_driver_if_due()
            if self._runs.read_changes():
                # A run began or ended: store up to the reading after that moment.
                flush_at = min(flush_at, time.monotonic() + self.config.period_s + _FIRST_S)
                self._has_new_runs = True
            self._runs.end_lost_runs()
            if time.monotonic() >= flush_at:
                flush_at = time.monotonic() + self.config.flush_s
                self._flush()
            if self._runs.any():
                idle_since = time.monotonic()
            linger_s = self.config.linger_s
            if linger_s is not None and time.monotonic() - idle_since > linger_s:
                self.stopping = True

    # Lanes and the driver.

    def _start_lane(self, gpus: list[NvmlGpu]) -> None:
        lane = Lane(self, self.config, gpus, time.monotonic())
        self._lanes.append(lane)
        lane.start()

    def _retire_lanes(self) -> None:
        lanes, self._lanes = self._lanes, []
        for lane in lanes:
            lane.retired = True

    def _free_waiting_gpus(self) -> None:
        """Give the GPUs that wait behind a call that hangs to a lane of their own."""
        for lane in list(self._lanes):
            asking, gpus = lane.asking, lane.gpus
            if asking is None or asking == lane.noted:
                continue
            gpu, since = asking
            if time.monotonic() - since <= self.config.patience_s:
                continue
            lane.noted = asking
            patience = f"{self.config.patience_s:g} s"
            self.note("hung_call", gpu, f"no answer for {patience}; the others go on")
            if waiting := [other for other in gpus if other is not gpu]:
                lane.gpus = [gpu]
                self._start_lane(waiting)

    def _reopen_driver_if_due(self) -> None:
        due = time.monotonic() >= self._reopen_at
        if self._driver_problem and self._reopening is None and due:
            # In a thread: a driver that is half there may not answer at all.
            self._reopening = threading.Thread(target=self._reopen_driver, daemon=True)
            self._reopening.start()

    def _reopen_driver(self) -> None:
        try:
            self._driver.close()
            gpus = self._driver.open()
        except DriverMissing:
            gpus = []
        self._reopen_at = time.monotonic() + self.config.retry_s
        self._reopening = None
        if gpus and not self.stopping:
            self._retire_lanes()
            self._gpus, self._driver_problem = gpus, None
            self.note("driver_back", None, f"{len(gpus)} GPUs, driver {self._driver.version}")
            self._start_lane(gpus)

    # Storing.

    def _flush(self) -> None:
        """Store what has been read; what cannot be stored is kept and tried again."""
        self._note_failed_seals()
        batch = self._buffer.take()
        now_us = self._clock.at_us(time.monotonic_ns())
        clock = (now_us, self._clock.offset_us)
        try:
            self._storage.store(batch, self._list_gpus(batch.readings), clock, self._describe())
        except (sqlite3.Error, OSError) as error:
            self._buffer.put_back(batch)
            if self._spool_problem is None:
                self._spool_problem = str(error)
                self.note("spool_full", None, f"{error}; readings wait in memory")
            self._thin()
        else:
            count = len(batch.readings)
            self._stored += count
            last_us = max((ts for _, ts, _ in batch.readings[-64:]), default=0)
            self._stored_until_us = max(self._stored_until_us, now_us, last_us)
            if self._spool_problem is not None:
                self._spool_problem = None
                self.note("spool_writable", None, f"{count} waiting readings were stored")
            if self._has_new_runs:
                self._has_new_runs = False
                self._storage.share_recent()
            self._storage.seal_if_due()
        self.spool.write_status(self._status("collecting"))

    def _thin(self) -> None:
        for left_out in self._buffer.thin(self.config.max_buffer):
            self._thinned += left_out
            self.note("thinned", None, f"{left_out} waiting readings left out")

    def _list_gpus(self, readings: list[Reading]) -> list[Gpu]:
        """The GPUs of these readings and of now: after a driver reload they differ."""
        probed = [gpu for gpu in self._gpus if gpu.probed]
        return list({id(gpu): gpu for gpu in [*probed, *(r[0] for r in readings)]}.values())

    def _describe(self) -> dict[str, Any]:
        """Who records, as a journal carries it."""
        return {
            "host": self.host,
            "meter": self.config.dcgm_url or "NVML",
            "collector_version": __version__,
            "driver_version": self._driver.version,
            "period_ms": round(self.config.period_s * 1000),
        }

    def _note_failed_seals(self, *, wait: bool = False) -> None:
        for code in self._storage.reap_sealers(wait=wait):
            self.note("seal_failed", None, f"exit code {code}; journals stay")

    def _finish(self) -> int:
        """Store everything, seal, and report what happened."""
        self._stop_event.set()
        lanes = self._stop_meters()
        self._note_failed_seals(wait=True)
        waiting = len(self._buffer.readings)
        self.note("stopped", None, f"{self._stored + waiting} readings, {self._missed} missed")
        self._flush()
        lost = len(self._buffer.readings)
        self._storage.close_journal()
        self._storage.seal()
        self._note_failed_seals(wait=True)
        self.spool.write_status(self._status("stopped"))
        if self._reopening is None and not any(lane.is_alive() for lane in lanes):
            self._driver.close()
        if lost:
            self._report(
                f"{lost} readings could not be stored ({self._spool_problem}) and are lost"
            )
            return DISK
        return 0

    def _stop_meters(self) -> list[Lane]:
        """End all that reads; returns the lanes: one whose call hangs is still alive."""
        if self._exporter is not None:
            self._exporter.join(timeout=self.config.patience_s)
        lanes, self._lanes = self._lanes, []
        for lane in lanes:
            lane.join(timeout=self.config.patience_s)
        if self._host_meter is not None:
            self._host_meter.stop()
        return lanes

    def _status(self, state: str) -> dict[str, Any]:
        gpus = self._exporter.gpus if self._exporter else self._gpus
        return {
            "state": state,
            "pid": os.getpid(),
            "pid_started": start_token(os.getpid()),
            "pid_namespace": pid_namespace(),
            "host": self.host,
            "driver_version": self._driver.version,
            "period_s": self.config.period_s,
            "gpus": [gpu.as_json() for gpu in gpus],
            "readings_stored": self._stored,
            "stored_until_us": self._stored_until_us,
            "readings_waiting": len(self._buffer.readings),
            "readings_missed": self._missed,
            "readings_thinned": self._thinned,
            "spool_bytes": self._storage.spool_bytes,
            "spool_problem": self._spool_problem,
            "driver_problem": self._driver_problem,
            "clock_offset_us": self._clock.offset_us,
            "runs_active": self._runs.run_ids(),
            "runs_alive": self._runs.alive,
        }


def run_as_command() -> NoReturn:
    """Collect with the configuration that the command line gives as JSON."""
    config = Config.from_json(sys.argv[1] if len(sys.argv) > 1 else "{}")
    try:
        collector = Collector(config, print_to_stderr)
    except OSError as error:
        print_to_stderr(str(error))
        sys.exit(DISK)
    code = collector.run()
    sys.stdout.flush()
    # A call that hangs in the driver must not keep the process from ending.
    os._exit(code)


if __name__ == "__main__":
    run_as_command()
