"""A training run with what it held, the GPUs that it can hold, and what was read of a file of runs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import NamedTuple

from flows.rows import RowFaults

SHARES_ASSUMED = "shares_assumed"
"""Label of runs whose part of each GPU is not told, but follows from how many they held."""
_MOST_INDEX = 4096


@dataclass
class Allocation:
    """One GPU held by a run; `place` says where in the file it stands."""

    gpu_uuid: str
    from_ts: datetime
    to_ts: datetime | None
    share_ppm: int
    place: str


@dataclass
class Run:
    """A training run with its allocations, and the rows of the file that tell it."""

    run_id: str
    name: str | None
    owner: str | None
    model: str | None
    started_at: datetime
    ended_at: datetime | None
    labels: dict[str, str] = field(default_factory=dict)
    allocations: list[Allocation] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)


@dataclass
class RunsRead:
    """What a reader made of a file: each row belongs to a run, is skipped by reason, or set aside."""

    faults: RowFaults
    runs: list[Run] = field(default_factory=list)
    rows: int = 0
    warnings: list[str] = field(default_factory=list)
    understood: list[str] = field(default_factory=list)


class KnownGpu(NamedTuple):
    """A GPU that runs can name."""

    gpu_uuid: str
    host: str
    gpu_index: int | None
    model: str | None = None


@dataclass(frozen=True)
class Gpus:
    """The GPUs that are known."""

    devices: tuple[KnownGpu, ...]

    @cached_property
    def by_uuid(self) -> dict[str, KnownGpu]:
        return {gpu.gpu_uuid: gpu for gpu in self.devices}

    @cached_property
    def _by_host(self) -> dict[str, list[KnownGpu]]:
        by_host: dict[str, list[KnownGpu]] = defaultdict(list)
        for gpu in sorted(self.devices):
            by_host[gpu.host].append(gpu)
        return by_host

    @cached_property
    def _hosts_by_label(self) -> dict[str, list[str]]:
        hosts: dict[str, list[str]] = defaultdict(list)
        for host in sorted(self._by_host):
            hosts[host.split(".")[0]].append(host)
        return hosts

    def list_of_host(self, host: str) -> list[KnownGpu]:
        """The GPUs of a host. A scheduler may know it by its first label, and the ledger by the whole name."""
        if host in self._by_host:
            return self._by_host[host]
        longer = [] if "." in host else self._hosts_by_label.get(host, [])
        return self._by_host[longer[0]] if len(longer) == 1 else []

    def find(self, hosts: Sequence[str], text: str) -> list[str]:
        """UUIDs that a text means on some hosts: all, an index, a range, a list, or a UUID itself.

        Raises:
            ValueError: it means a GPU that is not known there, or the same GPU twice.
        """
        unknown = f"unknown GPU {text or 'all'!r} on host {' or '.join(hosts)!r}"
        parts = [part for part in re.split(r"[,; ]+", text.strip()) if part]
        named = [part for part in parts if part in self.by_uuid]
        for uuid in named:
            if any(hosts) and not any(is_same_host(self.by_uuid[uuid].host, h) for h in hosts):
                raise ValueError(
                    f"GPU {uuid!r} is of host {self.by_uuid[uuid].host!r}, not of {' or '.join(hosts)!r}"
                )
        found = list(named)
        places = [part for part in parts if part not in self.by_uuid]
        for host in hosts if places or not parts else []:
            on_host = self._by_host.get(host, [])
            if not parts or [p.lower() for p in places] in (["all"], ["*"]):
                picked: list[str | None] = [gpu.gpu_uuid for gpu in on_host]
            else:
                by_index = {gpu.gpu_index: gpu.gpu_uuid for gpu in on_host}
                picked = [by_index.get(i) for part in places for i in _expand_indices(part)]
            if not picked or None in picked:
                raise ValueError(unknown)
            found += [uuid for uuid in picked if uuid]
        if len(set(found)) < len(found):
            raise ValueError(f"{text!r} names a GPU twice")
        return found

    def list_hosts(self) -> str:
        """The first ten hosts, for messages."""
        return ", ".join(sorted(self._by_host)[:10]) or "none"


def is_same_host(one: str, other: str) -> bool:
    """Whether two names can be of one host: the same, or one the first label of the other."""
    if "." in one and "." in other:
        return one == other
    return one.split(".")[0] == other.split(".")[0]


def _expand_indices(text: str) -> range:
    """What an index or a range of indices means; nothing where it is neither, or no host has so many."""
    span = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,12}))?", text)
    if span is None:
        raise ValueError(f"{text[:40]!r} is no index, range or UUID of a GPU")
    first, last = int(span[1]), int(span[2] or span[1])
    if not first <= last < _MOST_INDEX:
        raise ValueError(f"{text[:40]!r} is no range of the GPUs of a host")
    return range(first, last + 1)
