"""What a process's environment says of its run: Slurm, torchrun, MPI, Kubernetes and CUDA."""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from wattledger.process import start_token
from wattledger.readings import Gpu, Held
from wattledger.runs.fields import clean_text
from wattledger.runs.records import Record, make_slug, utc_now

RUN_ID = "WATTLEDGER_RUN_ID"
"""Set for everything that a run starts: a tracked part of a run belongs to that run."""


def begin_record(
    environment: Mapping[str, str],
    gpus: Sequence[Gpu],
    host: str,
    *,
    name: str = "",
    run_id: str = "",
    labels: Mapping[str, str] | None = None,
    program: Sequence[str] = (),
) -> Record:
    """The record of a process that starts now in this environment.

    Args:
        environment: its environment variables.
        gpus: the GPUs that the driver lets it see, in PCI order.
        host: the name under which the host's readings are kept.
        name: name of the run; Slurm's or the program's if left out.
        run_id: found from the launcher if left out.
        labels: free labels.
        program: its command line.
    """
    title = name or environment.get("SLURM_JOB_NAME", "") or _name_program(program)
    found_id, id_notes = identify_run(environment, title, host)
    held, gpu_notes = find_visible_gpus(environment, gpus)
    return Record(
        record_id=f"{make_slug(host)}-{time.time_ns() // 1000:x}-{secrets.token_hex(4)}",
        run_id=clean_text(run_id or found_id),
        name=clean_text(title),
        owner=clean_text(_find_owner(environment)),
        host=host,
        started_at=utc_now(),
        labels={clean_text(str(key)): str(value) for key, value in (labels or {}).items()},
        gpus=held,
        ranks=read_ranks(environment),
        slurm=read_slurm(environment),
        kubernetes=read_kubernetes(environment),
        notes=[*id_notes, *gpu_notes],
    )


def _name_program(program: Sequence[str]) -> str:
    """A name for a command: the script that Python runs, else the program. Never its arguments."""
    words = [Path(word).name for word in program]
    if not words:
        return "run"
    if re.fullmatch(r"python[\d.]*|torchrun|accelerate|deepspeed", words[0]):
        scripts = [word for word in words[1:] if word.endswith(".py")]
        return Path(scripts[0]).stem if scripts else words[0]
    return words[0]


def _find_owner(environment: Mapping[str, str]) -> str:
    try:
        return environment.get("SLURM_JOB_USER") or getpass.getuser()
    except (OSError, KeyError):
        # A container's user may have no name.
        return str(os.getuid())


def identify_run(environment: Mapping[str, str], title: str, host: str) -> tuple[str, list[str]]:
    """The run id that all ranks and nodes of this training agree on, and doubts about it."""
    run_id = (
        environment.get(RUN_ID)
        or _slurm_run_id(environment)
        or _kubernetes_run_id(environment, host)
        or _torchrun_run_id(environment)
        or _mpi_run_id(environment)
    )
    if run_id:
        return run_id, []
    if environment.get("MASTER_ADDR") and environment.get("WORLD_SIZE", "1") not in ("", "1"):
        return _parent_run_id(environment, title, host)
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return f"{make_slug(title)}-{moment}-{secrets.token_hex(2)}", []


def _slurm_run_id(environment: Mapping[str, str]) -> str | None:
    job = environment.get("SLURM_JOB_ID")
    if not job:
        return None
    if array := environment.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{environment.get('SLURM_ARRAY_TASK_ID', '')}"
    # The job, not the step: what a prolog, sacct and every rank agree on.
    return f"{environment.get('SLURM_CLUSTER_NAME', 'slurm')}-{job}"


def _kubernetes_run_id(environment: Mapping[str, str], host: str) -> str | None:
    index = environment.get("JOB_COMPLETION_INDEX")
    if not index:
        return None
    pod = environment.get("POD_NAME") or environment.get("HOSTNAME", host)
    job = re.sub(rf"-{re.escape(index)}(-[a-z0-9]{{5}})?$", "", pod)
    return f"k8s-{read_kubernetes(environment).get('namespace', 'default')}-{job}"


def _torchrun_run_id(environment: Mapping[str, str]) -> str | None:
    rendezvous = environment.get("TORCHELASTIC_RUN_ID", "")
    return None if rendezvous in ("", "none") else f"torchrun-{rendezvous}"


def _mpi_run_id(environment: Mapping[str, str]) -> str | None:
    for name in ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "PMI_JOBID"):
        if job := environment.get(name):
            return f"mpi-{re.sub(r'[^A-Za-z0-9._-]+', '-', job)}"
    return None


def _parent_run_id(environment: Mapping[str, str], title: str, host: str) -> tuple[str, list[str]]:
    """Ranks of this host share their parent; other hosts cannot be known from here."""
    launcher = os.getppid()
    parent = f"{host} {launcher} {start_token(launcher)} {environment.get('MASTER_PORT')}"
    token = hashlib.sha256(parent.encode()).hexdigest()[:8]
    notes = []
    if environment.get("LOCAL_WORLD_SIZE") != environment.get("WORLD_SIZE"):
        notes.append(
            "ranks on other hosts become runs of their own: give all the same --run-id, "
            f"{RUN_ID} or torchrun --rdzv-id"
        )
    return f"{make_slug(title)}-{token}", notes


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


def read_ranks(environment: Mapping[str, str]) -> dict[str, int]:
    """Rank, local rank and world size, from torchrun, Slurm or MPI."""
    ranks = {}
    for rank, names in _RANKS.items():
        # Nine digits at most: no job is larger, and an integer of the ledger holds them.
        number = next(
            (environment[n] for n in names if re.fullmatch("[0-9]{1,9}", environment.get(n, ""))),
            None,
        )
        if number is not None:
            ranks[rank] = int(number)
    return ranks


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


def read_slurm(environment: Mapping[str, str]) -> dict[str, str]:
    """Slurm's variables about the job."""
    return {name: clean_text(environment[name]) for name in _SLURM if environment.get(name)}


_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def read_kubernetes(environment: Mapping[str, str]) -> dict[str, str]:
    """Pod, namespace and node, where this is a pod (downward API variables first)."""
    if "KUBERNETES_SERVICE_HOST" not in environment:
        return {}
    pod = {
        "pod": environment.get("POD_NAME") or environment.get("HOSTNAME", ""),
        "namespace": environment.get("POD_NAMESPACE", ""),
        "node": environment.get("NODE_NAME", ""),
        "pod_uid": environment.get("POD_UID", ""),
    }
    if not pod["namespace"]:
        with suppress(OSError):
            pod["namespace"] = _NAMESPACE.read_text("utf-8").strip()
    return {name: clean_text(value) for name, value in pod.items() if value}


def find_visible_gpus(
    environment: Mapping[str, str], gpus: Sequence[Gpu]
) -> tuple[list[Held], list[str]]:
    """The GPUs that CUDA lets a process use, from `CUDA_VISIBLE_DEVICES`, and doubts about them.

    As CUDA does, the list ends at the first entry that names nothing, and a GPU named twice leaves
    none.

    Args:
        environment: environment variables of the process.
        gpus: the GPUs that NVML lets this process see, in PCI order.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [_hold_whole(gpu) for gpu in gpus], []
    entries = [entry.strip() for entry in visible.split(",")]
    notes = []
    held: list[Held] = []
    for entry in entries:
        device = _find_device(entry, gpus)
        if device is None:
            if entry not in ("", "-1", "NoDevFiles"):
                notes.append(f"CUDA_VISIBLE_DEVICES names {entry!r}, which is not here")
            break
        if device in held:
            return [], [f"CUDA_VISIBLE_DEVICES names {entry!r} twice: CUDA then uses no GPU"]
        held.append(device)
    models = {gpu.model for gpu in gpus}
    by_index = any(entry.isdigit() for entry in entries)
    if by_index and len(models) > 1 and environment.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        notes.append(
            "GPUs of several models are numbered by CUDA fastest first, here by PCI order: "
            "set CUDA_DEVICE_ORDER=PCI_BUS_ID or name them by UUID"
        )
    return held, notes


def _hold_whole(gpu: Gpu) -> Held:
    return Held(gpu.uuid, gpu.index, gpu.model)


def _find_device(entry: str, gpus: Sequence[Gpu]) -> Held | None:
    """The GPU or MIG instance that an entry names: by index, or by the beginning of its UUID."""
    if entry.isdigit():
        return _hold_whole(gpus[int(entry)]) if int(entry) < len(gpus) else None
    if entry.startswith("MIG-"):
        for gpu in gpus:
            for instance in gpu.instances:
                if instance.uuid.startswith(entry):
                    return Held(gpu.uuid, gpu.index, gpu.model, instance.share_ppm, instance.uuid)
        return None
    if entry.startswith("GPU-"):
        found = [gpu for gpu in gpus if gpu.uuid.startswith(entry)]
        return _hold_whole(found[0]) if len(found) == 1 else None
    return None
