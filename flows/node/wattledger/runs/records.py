"""Run records: who ran what, when, on which GPUs of this host. One file per launched process.

Ranks and nodes of one training write one record each, all with the same run id; the ledger joins
them, so energy is counted once however many ranks saw a GPU.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wattledger.meters.nvml import Gpu
from wattledger.process import pid_namespace, started_at
from wattledger.spool.spool import write_file

FORMAT_KEY, FORMAT = "wattledger_run_record", 1

RUN_ID = "WATTLEDGER_RUN_ID"
"""Set for everything that a run starts: a tracked part of a run belongs to that run."""


@dataclass(frozen=True)
class Held:
    """A GPU, or the share of it that a MIG instance is."""

    gpu_uuid: str
    gpu_index: int | None
    model: str
    share_ppm: int = 1_000_000
    instance: str = ""


@dataclass
class Record:
    """One process of a run, on one host."""

    record_id: str
    run_id: str
    name: str
    owner: str
    host: str
    started_at: str
    ended_at: str | None = None
    ended_by: str = ""
    """`exit`, `signal`, or `lost`: nobody saw the end, and it is the last time it was seen alive."""
    exit_code: int | None = None
    labels: dict[str, str] = field(default_factory=dict)
    gpus: list[Held] = field(default_factory=list)
    ranks: dict[str, int] = field(default_factory=dict)
    slurm: dict[str, str] = field(default_factory=dict)
    kubernetes: dict[str, str] = field(default_factory=dict)
    pid: int = 0
    pid_started: str = ""
    pid_namespace: str = ""
    """In which numbering of processes (container) `pid` means anything."""
    readings: str = ""
    """Spool in which the readings of this host are."""
    notes: list[str] = field(default_factory=list)

    def save(self, folder: Path) -> Path:
        """Write the record, synced, in one step."""
        path = folder / f"{self.record_id}.json"
        text = json.dumps({FORMAT_KEY: FORMAT, **asdict(self)}, indent=2, sort_keys=True)
        write_file(path, text)
        return path


def load(path: Path) -> Record:
    """Read a record.

    Raises:
        ValueError: it is none.
        OSError: it can't be read.
    """
    given = json.loads(path.read_text("utf-8"))
    if not isinstance(given, dict) or given.pop(FORMAT_KEY, None) != FORMAT:
        raise ValueError("not a run record of a version known here")
    return from_json(given)


def from_json(given: Mapping[str, Any]) -> Record:
    """A record from its fields.

    Raises:
        ValueError: they are not those of a record.
    """
    try:
        record = Record(**given)
        record.gpus = [Held(**held) for held in given.get("gpus", [])]
    except (TypeError, AttributeError) as error:
        raise ValueError(f"not a run record: {error}") from None
    return record


def now() -> str:
    return at(time.time_ns() // 1000)


def at(us: int) -> str:
    """UTC in microseconds as text, without rounding through floats."""
    moment = datetime.fromtimestamp(us // 1_000_000, UTC).replace(microsecond=us % 1_000_000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def begin(
    environment: Mapping[str, str],
    gpus: Sequence[Gpu],
    host: str,
    *,
    name: str = "",
    run_id: str = "",
    labels: Mapping[str, str] | None = None,
    program: Sequence[str] = (),
) -> Record:
    """The record of a process that starts now in this environment."""
    title = name or environment.get("SLURM_JOB_NAME", "") or _title(program)
    found, notes = identity(environment, title, host)
    held, doubts = visible(environment, gpus)
    return Record(
        record_id=f"{host}-{time.time_ns() // 1000:x}-{secrets.token_hex(4)}",
        run_id=run_id or found,
        name=title,
        owner=_owner(environment),
        host=host,
        started_at=now(),
        labels=dict(labels or {}),
        gpus=held,
        ranks=ranks(environment),
        slurm=slurm(environment),
        kubernetes=kubernetes(environment),
        notes=[*notes, *doubts],
    )


def _title(program: Sequence[str]) -> str:
    """A name for a command: the script that Python runs, else the program. Never its arguments."""
    words = [Path(word).name for word in program]
    if not words:
        return "run"
    if re.fullmatch(r"python[\d.]*|torchrun|accelerate|deepspeed", words[0]):
        scripts = [word for word in words[1:] if word.endswith(".py")]
        return Path(scripts[0]).stem if scripts else words[0]
    return words[0]


def _owner(environment: Mapping[str, str]) -> str:
    try:
        return environment.get("SLURM_JOB_USER") or getpass.getuser()
    except (OSError, KeyError):
        # A container's user may have no name.
        return str(os.getuid())


def identity(environment: Mapping[str, str], title: str, host: str) -> tuple[str, list[str]]:
    """The run id that all ranks and nodes of this training agree on, and doubts about it."""
    get = environment.get
    if given := get(RUN_ID):
        return given, []
    if job := get("SLURM_JOB_ID"):
        cluster = get("SLURM_CLUSTER_NAME", "slurm")
        if get("SLURM_ARRAY_JOB_ID"):
            job = f"{get('SLURM_ARRAY_JOB_ID')}_{get('SLURM_ARRAY_TASK_ID', '')}"
        # The job, not the step: what a prolog, sacct and every rank agree on.
        return f"{cluster}-{job}", []
    if index := get("JOB_COMPLETION_INDEX"):
        pod = get("POD_NAME") or get("HOSTNAME", host)
        job = re.sub(rf"-{re.escape(index)}(-[a-z0-9]{{5}})?$", "", pod)
        return f"k8s-{kubernetes(environment).get('namespace', 'default')}-{job}", []
    if (given := get("TORCHELASTIC_RUN_ID", "")) not in ("", "none"):
        return f"torchrun-{given}", []
    for name in ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "PMI_JOBID"):
        if given := get(name):
            return f"mpi-{re.sub(r'[^A-Za-z0-9._-]+', '-', given)}", []
    if get("MASTER_ADDR") and int(get("WORLD_SIZE") or 1) > 1:
        # Ranks of this host share their parent; other hosts can't be known from here.
        parent = f"{host} {os.getppid()} {started_at(os.getppid())} {get('MASTER_PORT')}"
        token = hashlib.sha256(parent.encode()).hexdigest()[:8]
        notes = []
        if get("LOCAL_WORLD_SIZE") != get("WORLD_SIZE"):
            notes.append(
                "ranks on other hosts become runs of their own: give all the same --run-id, "
                f"{RUN_ID} or torchrun --rdzv-id"
            )
        return f"{slug(title)}-{token}", notes
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return f"{slug(title)}-{moment}-{secrets.token_hex(2)}", []


def slug(title: str) -> str:
    """A name as part of an id or a file's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", title).strip("-") or "run"


_RANKS = {
    "rank": ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"),
    "local_rank": (
        "LOCAL_RANK",
        "SLURM_LOCALID",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "MPI_LOCALRANKID",
    ),
    "world_size": ("WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"),
}


def ranks(environment: Mapping[str, str]) -> dict[str, int]:
    """Rank, local rank and world size, from torchrun, Slurm or MPI."""
    found = {}
    for what, names in _RANKS.items():
        given = next((environment[n] for n in names if environment.get(n, "").isdigit()), None)
        if given is not None:
            found[what] = int(given)
    return found


_SLURM = [
    "SLURM_CLUSTER_NAME",
    "SLURM_JOB_ID",
    "SLURM_STEP_ID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_JOB_NAME",
    "SLURM_JOB_ACCOUNT",
    "SLURM_JOB_PARTITION",
    "SLURM_JOB_NODELIST",
    "SLURM_JOB_NUM_NODES",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_NODEID",
    "SLURM_RESTART_COUNT",
    "SLURM_JOB_GPUS",
    "SLURM_STEP_GPUS",
]


def slurm(environment: Mapping[str, str]) -> dict[str, str]:
    """What Slurm says of the job."""
    return {name: environment[name] for name in _SLURM if environment.get(name)}


_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def kubernetes(environment: Mapping[str, str]) -> dict[str, str]:
    """Pod, namespace and node, where this is a pod (downward API variables first)."""
    if "KUBERNETES_SERVICE_HOST" not in environment:
        return {}
    found = {
        "pod": environment.get("POD_NAME") or environment.get("HOSTNAME", ""),
        "namespace": environment.get("POD_NAMESPACE", ""),
        "node": environment.get("NODE_NAME", ""),
        "pod_uid": environment.get("POD_UID", ""),
    }
    if not found["namespace"]:
        with suppress(OSError):
            found["namespace"] = _NAMESPACE.read_text("utf-8").strip()
    return {what: value for what, value in found.items() if value}


def visible(environment: Mapping[str, str], gpus: Sequence[Gpu]) -> tuple[list[Held], list[str]]:
    """The GPUs that CUDA lets a process use, from `CUDA_VISIBLE_DEVICES`, and doubts about them.

    `gpus` are those that NVML lets this process see, in PCI order. As CUDA does, the list ends at
    the first entry that names nothing, and a GPU named twice leaves none.
    """
    given = environment.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        return [_held(gpu) for gpu in gpus], []
    notes = []
    held: list[Held] = []
    for entry in (part.strip() for part in given.split(",")):
        found = _named(entry, gpus)
        if found is None:
            if entry not in ("", "-1", "NoDevFiles"):
                notes.append(f"CUDA_VISIBLE_DEVICES names {entry!r}, which is not here")
            break
        if found in held:
            return [], [f"CUDA_VISIBLE_DEVICES names {entry!r} twice: CUDA then uses no GPU"]
        held.append(found)
    models = {gpu.model for gpu in gpus}
    by_index = any(part.strip().isdigit() for part in given.split(","))
    if by_index and len(models) > 1 and environment.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        notes.append(
            "GPUs of several models are numbered by CUDA fastest first, here by PCI order: "
            "set CUDA_DEVICE_ORDER=PCI_BUS_ID or name them by UUID"
        )
    return held, notes


def _held(gpu: Gpu) -> Held:
    return Held(gpu.uuid, gpu.index, gpu.model)


def _named(entry: str, gpus: Sequence[Gpu]) -> Held | None:
    if entry.isdigit():
        return _held(gpus[int(entry)]) if int(entry) < len(gpus) else None
    if entry.startswith("MIG-"):
        for gpu in gpus:
            for instance in gpu.instances:
                if instance.uuid.startswith(entry):
                    return Held(gpu.uuid, gpu.index, gpu.model, instance.share_ppm, instance.uuid)
        return None
    if entry.startswith("GPU-"):
        found = [gpu for gpu in gpus if gpu.uuid.startswith(entry)]
        return _held(found[0]) if len(found) == 1 else None
    return None


BEAT_S = 10.0
"""How often a launcher touches its record, for collectors that can't see its process."""
_SILENT_S = 60.0
GRACE_S = 2.0
"""How long after the end of its process a run may take to write its end itself."""


class Active:
    """The runs of this host that have not ended. A run whose process is gone is given its end."""

    def __init__(self, folder: Path, host: str, alive: Mapping[str, str] | None = None) -> None:
        """`alive`: record id -> when the collector before this one last saw it alive."""
        self._folder, self._host = folder, host
        self._seen = 0
        self._ended: set[Path] = set()
        self._open: dict[Path, Record] = {}
        self._gone: dict[Path, float] = {}
        self.alive: dict[str, str] = dict(alive or {})

    def changed(self) -> bool:
        """Whether records were written since the last look."""
        try:
            stamp = self._folder.stat().st_mtime_ns
        except OSError:
            return False
        if stamp == self._seen:
            return False
        self._seen = stamp
        self._open = {}
        for path in set(self._folder.glob("*.json")) - self._ended:
            with suppress(OSError, ValueError):
                record = load(path)
                if record.ended_at is None and record.host == self._host:
                    self._open[path] = record
                else:
                    self._ended.add(path)
        return True

    def look(self) -> None:
        """See which runs are alive; one that is gone ended when it was last seen."""
        for path, record in list(self._open.items()):
            if (last := _last_seen(record, path)) is not None:
                self.alive[record.record_id] = last
                continue
            gone = self._gone.setdefault(path, time.monotonic())
            if time.monotonic() - gone < GRACE_S:
                continue
            del self._open[path], self._gone[path]
            with suppress(OSError, ValueError):
                # Its own last word may have come meanwhile.
                fresh = load(path)
                if fresh.ended_at is None:
                    last = self.alive.get(record.record_id, fresh.started_at)
                    fresh.ended_at, fresh.ended_by = max(last, fresh.started_at), "lost"
                    fresh.save(self._folder)
        open_ids = {record.record_id for record in self._open.values()}
        self.alive = {key: at for key, at in self.alive.items() if key in open_ids}

    def any(self) -> bool:
        return bool(self._open)

    def ids(self) -> set[str]:
        return {record.run_id for record in self._open.values()}


def _last_seen(record: Record, path: Path) -> str | None:
    """When a run was last known to be alive, if it still counts as alive: mostly now."""
    if record.pid_namespace in ("", pid_namespace()):
        alive = record.pid_started and started_at(record.pid) == record.pid_started
        return now() if alive else None
    # Of another container: its launcher touches the record while it lives.
    try:
        beat = path.stat().st_mtime
    except OSError:
        return None
    return at(int(beat * 1e6)) if time.time() - beat < _SILENT_S else None


def is_first_here(record: Record) -> bool:
    """Whether this rank speaks for its host."""
    return record.ranks.get("local_rank", 0) == 0
