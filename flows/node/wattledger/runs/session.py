"""One process of a run, from its start to its end: a collector, a record, a summary."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wattledger.config import Config
from wattledger.meters.nvml import Driver, DriverMissing, NvmlGpu
from wattledger.process import child_environment, module_command, pid_namespace, start_token
from wattledger.runs.environment import begin_record
from wattledger.runs.records import Record, format_utc, utc_now
from wattledger.spool.spool import SYSTEM_SPOOL, Spool, default_root, hostname

_START_S = 5.0
"""How long the run waits for a collector that we start."""
_LINGER_S = 1.0
"""How long a collector that we started outlives the last run of its host."""


@dataclass(frozen=True)
class Options:
    """What a user may set for a run; `project` is a folder with wattledger.toml, for CO2e and water."""

    name: str = ""
    run_id: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    spool: str = ""
    project: str = ""
    quiet: bool = False
    period_s: float = 1.0
    host_meter: bool = True


class Session:
    """The recording of one process. Whatever fails here is reported, and never stops the work."""

    def __init__(self, options: Options, report: Callable[[str], None]) -> None:
        self.options = options
        self.record: Record | None = None
        self._report = (lambda text: None) if options.quiet else report
        self._spool: Spool | None = None
        self._folder: Path | None = None
        self._path: Path | None = None
        self._period_s = options.period_s

    def begin(self, program: Sequence[str], environment: Mapping[str, str], pid: int) -> str:
        """Start recording for process `pid`; returns the run id, empty where nothing can be recorded."""
        try:
            self._begin(program, environment, pid)
        except Exception as error:  # The command runs, whatever this is.
            self._report(f"the run is not recorded: {error}")
        return self.record.run_id if self.record is not None else ""

    def _begin(self, program: Sequence[str], environment: Mapping[str, str], pid: int) -> None:
        host = hostname()
        gpus, missing = _list_gpus()
        options = self.options
        record = begin_record(
            environment,
            gpus,
            host,
            name=options.name,
            run_id=options.run_id,
            labels=options.labels,
            program=program,
        )
        self.record = record
        if missing and record.is_first_here:
            self._report(missing)
        for note in record.notes:
            self._report(note)
        self._spool = self._find_or_start_collector(host)
        record.readings = str(self._spool.root.resolve())
        record.started_at = utc_now()
        self.record_process(pid)

    def record_process(self, pid: int) -> None:
        """Write into the record which process the run is.

        Raises:
            OSError, ValueError: the record cannot be written.
        """
        if self.record is None or self._spool is None:
            return
        self.record.pid, self.record.pid_started = pid, start_token(pid) or ""
        self.record.pid_namespace = pid_namespace()
        self._path = self.record.save(self._folder or self._make_folder(self._spool))

    def _make_folder(self, spool: Spool) -> Path:
        self._folder = spool.make_own_runs()
        return self._folder

    def beat(self) -> None:
        """Show that the run is alive to a collector that cannot see its process."""
        if self._path is not None:
            with suppress(OSError):
                os.utime(self._path)

    def _find_or_start_collector(self, host: str) -> Spool:
        """The spool of the collector that runs on this host; one is started if none runs.

        Raises:
            OSError: the spool cannot be written.
        """
        own = Spool(Path(self.options.spool) if self.options.spool else default_root(), host)
        system = Spool(SYSTEM_SPOOL, host)
        for spool in (own,) if self.options.spool else (own, system):
            if (status := spool.read_running_status()) is not None and os.access(
                spool.runs, os.W_OK
            ):
                with suppress(TypeError, ValueError):
                    self._period_s = min(60.0, float(status.get("period_s", 1.0)))
                return spool
        own.create()
        self._start_collector(own)
        if not self._wait_until_stored(own, 1):
            self._report(f"the collector is slow to start; see {own.folder / 'collector.log'}")
        return own

    def _start_collector(self, spool: Spool) -> None:
        config = Config(
            spool=str(spool.root),
            host=spool.host,
            period_s=self.options.period_s,
            host_meter=self.options.host_meter,
            gpus_required=False,
            linger_s=_LINGER_S,
        )
        with (spool.folder / "collector.log").open("ab") as log:
            subprocess.Popen(
                module_command("wattledger.collect.collector", config.as_json()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=child_environment(),
                start_new_session=True,
            )

    def _wait_until_stored(self, spool: Spool, until_us: int, seconds: float = _START_S) -> bool:
        """Wait for readings up to a moment to be stored; False if that takes too long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            status = spool.read_running_status()
            stored_until_us = status.get("stored_until_us") if status else None
            if isinstance(stored_until_us, int) and stored_until_us >= until_us:
                return True
            time.sleep(0.02)
        return False

    def end(self, exit_code: int | None, by: str = "exit") -> dict[str, Any] | None:
        """Write the end; unless quiet, wait for the last readings, and give the summary."""
        record, spool = self.record, self._spool
        if record is None or spool is None or self._path is None:
            return None
        ended_us = time.time_ns() // 1000
        record.ended_at, record.ended_by = format_utc(ended_us), by
        record.exit_code = exit_code
        try:
            record.save(self._path.parent)
        except (OSError, ValueError) as error:
            self._report(f"the end of the run is not recorded: {error}")
            return None
        if self.options.quiet or not record.is_first_here:
            return None
        # The reading after the end closes the last interval.
        period_us = round(self._period_s * 1e6)
        self._wait_until_stored(spool, ended_us + period_us, 2 * self._period_s + 2)
        return self._summarize()

    def _summarize(self) -> dict[str, Any] | None:
        """What this host's GPUs drew for the run: the ledger's own formulas on the spool's readings."""
        assert self._spool is not None
        words = [str(self._path), str(self._spool.folder)]
        if self.options.project:
            words.append(self.options.project)
        try:
            completed = subprocess.run(
                module_command("flows.cli.run_summary", *words),
                env=child_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            self._report(f"the run is recorded ({self._path}), but its summary failed: {error}")
            return None
        try:
            summary = json.loads(completed.stdout)
        except (ValueError, RecursionError):
            why = (completed.stderr.strip().splitlines() or ["no reason given"])[-1]
            self._report(f"the run is recorded ({self._path}), but its summary failed: {why}")
            return None
        if not isinstance(summary, dict):
            return None
        for line in summary.pop("lines", []):
            self._report(line)
        return summary


def _list_gpus() -> tuple[list[NvmlGpu], str]:
    """The GPUs that the driver lets this process see, and why there are none without a driver."""
    driver = Driver()
    try:
        gpus = driver.open()
        driver.close()
    except DriverMissing as error:
        return [], f"no NVIDIA driver answers ({error}): only the host is measured"
    return gpus, ""


def find_project(options: Options, environment: Mapping[str, str]) -> Options:
    """Options with the project that gives factors: theirs, `WATTLEDGER_PROJECT`, or the working folder."""
    project = options.project or environment.get("WATTLEDGER_PROJECT", "")
    with suppress(OSError):
        if not project and Path("wattledger.toml").is_file():
            project = str(Path.cwd())
    return replace(options, project=project)
