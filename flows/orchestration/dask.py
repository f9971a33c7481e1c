"""The heavy parts of a computation as Prefect tasks, so that Dask can spread them over machines.

Readings are reduced by file, and devices are metered by host group and time. Workers only read: the lake as it was
when the computation began, whatever is loaded meanwhile. A worker that dies has written nothing, and its tasks
run again elsewhere; what the process that computes writes, it writes in one transaction.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import duckdb
import polars as pl
from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture

from flows.accounting.energy import MeteredSlots, meter_windows
from flows.accounting.fleet import Fleet
from flows.accounting.stretches import Progress, reduce_segments
from flows.orchestration.project import load_project
from flows.settings import Cluster, Settings
from flows.warehouse.lake import LakeStore, read_snapshot
from transforms.gaps import GapRule

_AHEAD = 4
"""Tasks that wait for each worker, so that no more results than these are held at once."""


def make_task_runner(cluster: Cluster) -> Any:
    """Make a task runner of Prefect from the Dask cluster of the settings."""
    from prefect_dask.task_runners import DaskTaskRunner

    if cluster.address:
        return DaskTaskRunner(address=cluster.address)
    return DaskTaskRunner(
        cluster_kwargs={
            "n_workers": cluster.workers,
            "threads_per_worker": 1,
            "dashboard_address": None,
            # A worker that ends tells the log that it lost its scheduler; what fails, its task says.
            "silence_logs": logging.CRITICAL,
        }
    )


class OnCluster:
    """Does what `flows.accounting.compute.LocalEngine` does, by tasks of the flow that it is used in."""

    def __init__(self, project: str, settings: Settings) -> None:
        assert settings.cluster is not None
        self._project = project
        self._most = settings.cluster.workers * _AHEAD

    def reduce_segments(
        self,
        con: duckdb.DuckDBPyConnection,
        batches: Sequence[Sequence[int]],
        rule: GapRule,
        progress: Progress,
    ) -> Iterator[pl.DataFrame]:
        """Stretches of the readings of some files (segment keys)."""
        snapshot = read_snapshot(con)
        arguments = [(self._project, snapshot, list(keys), rule) for keys in batches]
        for _, stretches in self._run_in_order(reduce_files, arguments):
            progress(int(stretches["readings"].sum()))
            yield stretches

    def meter_parts(
        self, con: duckdb.DuckDBPyConnection, fleet: Fleet, parts: Sequence[pl.DataFrame]
    ) -> Iterator[tuple[pl.DataFrame, MeteredSlots]]:
        """What the devices of some windows drew."""
        snapshot = read_snapshot(con)
        arguments = (
            (self._project, snapshot, fleet.select_groups(windows["host_group"].unique()), windows)
            for windows in parts
        )
        for (*_, windows), energy_of_windows in self._run_in_order(meter_devices, arguments):
            yield windows, energy_of_windows

    def _run_in_order(
        self, task: Task[Any, Any], arguments: Iterable[tuple[Any, ...]]
    ) -> Iterator[tuple[Any, Any]]:
        """Run a task with each of some arguments, and give these with the results, in order.

        Only so many are under way at once.
        """
        running: deque[tuple[tuple[Any, ...], PrefectFuture[Any]]] = deque()
        for values in arguments:
            running.append((values, task.submit(*values)))
            if len(running) == self._most:
                first, future = running.popleft()
                yield first, future.result()
        for first, future in running:
            yield first, future.result()


_OPTIONS: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "persist_result": False,
    "retries": 3,
    "retry_delay_seconds": [2, 10, 30],
}


def _connect_to_snapshot(project: str, snapshot: int) -> duckdb.DuckDBPyConnection:
    settings = load_project(project)
    assert settings.lake is not None
    return LakeStore(settings.lake, settings.root, snapshot=snapshot).connect(read_only=True)


@task(name="reduce readings", **_OPTIONS)
def reduce_files(project: str, snapshot: int, keys: list[int], rule: GapRule) -> pl.DataFrame:
    """Stretches of the readings of some files."""
    con = _connect_to_snapshot(project, snapshot)
    try:
        return reduce_segments(con, keys, rule, lambda rows: None)
    finally:
        con.close()


@task(name="meter devices", **_OPTIONS)
def meter_devices(project: str, snapshot: int, fleet: Fleet, windows: pl.DataFrame) -> MeteredSlots:
    """What the devices of some windows drew, and who held them."""
    con = _connect_to_snapshot(project, snapshot)
    try:
        return meter_windows(con, fleet, windows)
    finally:
        con.close()
