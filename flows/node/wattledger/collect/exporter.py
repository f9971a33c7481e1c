"""Reads a DCGM exporter instead of the driver, and records the pods that hold GPUs as runs."""

from __future__ import annotations

import os
import threading
import time
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path

from wattledger.collect.sink import Sink
from wattledger.config import Config
from wattledger.meters.dcgm import ScrapedGpu, make_run_id, parse_gpus
from wattledger.process import start_token
from wattledger.readings import QUANTITIES, Gpu, Held
from wattledger.runs.fields import clean_text
from wattledger.runs.records import Record, make_slug, utc_now
from wattledger.spool.spool import Spool

_MOST_BYTES = 64 << 20
"""Of a page of metrics; a cut one is none that can be read to its end, and the next is tried."""
_Pod = tuple[str, str]
"""Namespace and name."""


class Exporter(threading.Thread):
    """Reads an exporter, period after period, for a collector."""

    def __init__(self, sink: Sink, config: Config, spool: Spool) -> None:
        super().__init__(daemon=True)
        self.gpus: list[Gpu] = []
        """The GPUs that were seen, in order; other threads may read it."""
        self._sink, self._config = sink, config
        self._pods = PodRuns(spool)
        self._down = False

    def run(self) -> None:
        period = self._config.period_s
        due = time.monotonic()
        while not self._sink.stopping:
            self._scrape()
            self._sink.check_clock()
            due = max(due + period, time.monotonic() - period)
            self._sink.wait(max(0.0, due - time.monotonic()))
        self._pods.update({})

    def _scrape(self) -> None:
        url = self._config.dcgm_url
        began_ns = time.monotonic_ns()
        try:
            with urllib.request.urlopen(url, timeout=max(1.0, self._config.period_s)) as answer:
                text = answer.read(_MOST_BYTES)
                scraped = parse_gpus(text.decode(), self._config.run_label)
        except (OSError, ValueError) as error:
            if not self._down:
                self._sink.note("exporter_lost", None, f"{url}: {error}")
            self._down = True
            return
        if self._down:
            self._down = False
            self._sink.note("exporter_back", None, f"{len(scraped)} GPUs")
        pods: dict[_Pod, dict[str, Held]] = {}
        for seen in scraped:
            values = tuple(seen.values.get(name) for name in QUANTITIES)
            self._sink.keep(self._identify(seen), began_ns, values)
            for pod, held in seen.pods.items():
                pods.setdefault(pod, {})[held.instance or held.gpu_uuid] = held
        try:
            self._pods.update(pods)
        except (OSError, ValueError) as error:
            self._sink.note("record_failed", None, str(error))

    def _identify(self, seen: ScrapedGpu) -> Gpu:
        """The same object for a GPU in every scrape; what its first one lacks is not exported."""
        for gpu in self.gpus:
            if gpu.uuid == seen.uuid:
                return gpu
        gpu = Gpu(seen.uuid, seen.index, seen.model)
        gpu.unsupported = {name: "not exported" for name in QUANTITIES if name not in seen.values}
        self.gpus = [*self.gpus, gpu]
        return gpu


class PodRuns:
    """Records of the pods that hold GPUs, from when they appear to when they go."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._records: dict[_Pod, Record] = {}
        self._made: Path | None = None

    @property
    def _folder(self) -> Path:
        if self._made is None:
            self._made = self._spool.make_own_runs()
        return self._made

    def update(self, pods: Mapping[_Pod, Mapping[str, Held]]) -> None:
        """Write the beginning and the end of runs, as pods come and go with their GPUs.

        Args:
            pods: all pods of now -> what each holds, by UUID of the instance or GPU.

        Raises:
            OSError: a record cannot be written.
        """
        for pod, record in list(self._records.items()):
            if sorted(pods.get(pod, {})) != sorted(h.instance or h.gpu_uuid for h in record.gpus):
                record.ended_at, record.ended_by = utc_now(), "pod"
                record.save(self._folder)
                del self._records[pod]
        for pod, held in pods.items():
            if pod not in self._records:
                self._records[pod] = record = self._begin_record(*pod, held.values())
                record.save(self._folder)

    def _begin_record(self, namespace: str, name: str, gpus: Iterable[Held]) -> Record:
        host, pid = self._spool.host, os.getpid()
        return Record(
            record_id=f"{host}-{time.time_ns() // 1000:x}-{make_slug(name)}",
            run_id=clean_text(make_run_id(namespace, name)),
            name=clean_text(name),
            owner=clean_text(namespace),
            host=host,
            started_at=utc_now(),
            gpus=list(gpus),
            kubernetes={"namespace": clean_text(namespace), "pod": clean_text(name)},
            # The collector stands for the pod: if it goes, the record gets its end.
            pid=pid,
            pid_started=start_token(pid) or "",
            readings=str(self._spool.root.resolve()),
        )
