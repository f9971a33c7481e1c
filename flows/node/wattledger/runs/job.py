"""A scheduler's job on this node, told by its prolog and epilog: `wattledger job begin` and `end`.

For sites that record every job without its user doing anything. The record is open from one to the
other; if the node goes down between them, it ends when the collector last saw the node up.
"""

from __future__ import annotations

from collections.abc import Mapping

from wattledger.meters.nvml import Driver, DriverMissing
from wattledger.process import THE_MACHINE, started_at
from wattledger.runs import records
from wattledger.runs.records import Record
from wattledger.spool.spool import Spool


class NoJob(Exception):
    """The environment names no job, or none that has begun."""


def _path_name(environment: Mapping[str, str], host: str) -> str:
    job = environment.get("SLURM_JOB_ID")
    if not job:
        raise NoJob("SLURM_JOB_ID is not set: this belongs into Slurm's prolog and epilog")
    return f"{host}-job-{records.slug(job)}"


def begin(environment: Mapping[str, str], spool: Spool) -> Record:
    """Write the record of a job that begins; the same again if it has begun already.

    Raises:
        NoJob: the environment names none.
        OSError: the spool can't be written.
    """
    name = _path_name(environment, spool.host)
    driver = Driver()
    try:
        gpus = driver.open()
        driver.close()
    except DriverMissing:
        gpus = []
    given = dict(environment)
    if "SLURM_JOB_GPUS" in given:
        # A prolog runs outside of the job's own view: these are the node's own numbers.
        given["CUDA_VISIBLE_DEVICES"] = given["SLURM_JOB_GPUS"]
    record = records.begin(given, gpus, spool.host)
    record.record_id = name
    record.pid, record.pid_started = THE_MACHINE, started_at(THE_MACHINE) or ""
    record.readings = str(spool.root.resolve())
    spool.create()
    path = spool.runs / f"{name}.json"
    if path.exists() and records.load(path).ended_at is None:
        return records.load(path)
    record.save(spool.runs)
    return record


def end(environment: Mapping[str, str], spool: Spool) -> Record:
    """Write the end of a job.

    Raises:
        NoJob: none has begun here.
        OSError, ValueError: its record can't be read or written.
    """
    path = spool.runs / f"{_path_name(environment, spool.host)}.json"
    if not path.exists():
        raise NoJob(f"no job has begun here: {path} is not there")
    record = records.load(path)
    if record.ended_at is None:
        record.ended_at, record.ended_by = records.now(), "epilog"
        code = environment.get("SLURM_JOB_EXIT_CODE2", "").partition(":")[0]
        record.exit_code = int(code) if code.isdigit() else None
        record.save(spool.runs)
    return record
