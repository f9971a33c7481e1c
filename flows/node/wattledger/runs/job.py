"""A scheduler's job on this node, recorded by its prolog and epilog: `wattledger job begin` and `end`.

For sites that record every job without their users doing anything. The record is open between the
two; if the node goes down meanwhile, it ends when the collector last saw the node up.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from wattledger.meters.nvml import Driver, DriverMissing
from wattledger.process import THE_MACHINE, start_token
from wattledger.runs.environment import begin_record
from wattledger.runs.records import Record, load_record, make_slug, utc_now
from wattledger.spool.spool import Spool


class NoJob(Exception):
    """The environment names no job, or none that has begun."""


def _record_id(environment: Mapping[str, str], host: str) -> str:
    job = environment.get("SLURM_JOB_ID")
    if not job:
        raise NoJob("SLURM_JOB_ID is not set: this belongs into Slurm's prolog and epilog")
    return f"{host}-job-{make_slug(job)}"


def begin_job(environment: Mapping[str, str], spool: Spool) -> Record:
    """Write the record of a job that begins; one that has begun already keeps its record.

    Raises:
        NoJob: the environment names none.
        OSError: the spool cannot be written.
    """
    record_id = _record_id(environment, spool.host)
    driver = Driver()
    try:
        gpus = driver.open()
        driver.close()
    except DriverMissing:
        gpus = []
    job = dict(environment)
    if "SLURM_JOB_GPUS" in job:
        # A prolog sees all GPUs of the node, so these are the node's own numbers.
        job["CUDA_VISIBLE_DEVICES"] = job["SLURM_JOB_GPUS"]
    record = begin_record(job, gpus, spool.host)
    record.record_id = record_id
    record.pid, record.pid_started = THE_MACHINE, start_token(THE_MACHINE) or ""
    record.readings = str(spool.root.resolve())
    spool.create()
    # The prolog's own folder: no user can have put anything there.
    folder = spool.make_own_runs()
    uid = environment.get("SLURM_JOB_UID", "")
    if uid.isdecimal() and len(uid) < 10 and folder.stat().st_uid == 0:
        # Only root speaks for others, and a file server may not know us for root.
        record.owner_uid = int(uid)
    with suppress(FileNotFoundError):
        begun = load_record(folder / f"{record_id}.json")
        if begun.ended_at is None:
            return begun
    record.save(folder)
    return record


def end_job(environment: Mapping[str, str], spool: Spool) -> Record:
    """Write the end of a job.

    Raises:
        NoJob: none has begun here.
        OSError, ValueError: its record cannot be read or written.
    """
    name = f"{_record_id(environment, spool.host)}.json"
    folders = [spool.make_own_runs(), spool.runs] if spool.runs.exists() else []
    # An older version's prolog wrote into `runs` itself.
    begun = [folder for folder in folders if (folder / name).exists()]
    if not begun:
        raise NoJob(f"no job has begun here: {spool.runs} has no {name} of ours")
    record = load_record(begun[0] / name)
    if record.ended_at is None:
        record.ended_at, record.ended_by = utc_now(), "epilog"
        code = environment.get("SLURM_JOB_EXIT_CODE2", "").partition(":")[0]
        record.exit_code = int(code) if code.isdigit() else None
        record.save(begun[0])
    return record
