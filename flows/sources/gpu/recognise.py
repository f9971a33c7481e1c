"""What a text file is that is no log of GPU readings."""

from __future__ import annotations

import re
from pathlib import Path

from flows.errors import BadInput, locate

MESSAGE = (
    r"(?i)^\s*(failed to initialize nvml|unable to determine the device handle|no devices were found|"
    r"nvidia-smi has failed|unknown error|gpu at pci|gpu is lost|make sure that the latest|error[: ]|"
    r"warning[: ]|terminated|killed|please|reboot|driver/library version|nvml library|\^c)"
)
"""What nvidia-smi and the shell write between readings."""


def explain_unknown(path: Path, line: str, names: list[str], missing: str) -> BadInput:
    """Why a text file is no log of GPU readings that is known; a known document is named for what it is.

    Args:
        path: The file.
        line: Its first line.
        names: The names of its columns, if it has a header.
        missing: The column that it lacks.
    """
    place = locate(path, 1, value=line.strip()[:200])
    for pattern, what, remedy in _OTHERS:
        if re.search(pattern, line):
            return BadInput(f"this is {what}", where=place, remedy=remedy)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        return BadInput(f"column {twice[0]!r} stands twice", where=locate(path, 1))
    return BadInput(
        f"no column {missing!r}",
        where=place,
        remedy="Record with --query-gpu=timestamp,index,uuid,name,power.draw,... or describe "
        "the columns under [sources.NAME] in wattledger.toml and pass --source NAME",
    )


_QUERY = "Record with nvidia-smi --query-gpu=timestamp,uuid,name,power.draw,power.limit --format=csv -l 1"
_OTHERS = (
    (r"={5,}\s*NVSMI LOG", "the output of `nvidia-smi -q` as text", f"{_QUERY}, or with -q -x"),
    (r"NVIDIA-SMI \d|^\+-{10,}", "the table of plain `nvidia-smi`", _QUERY),
    (
        r"run_id.*emissions|emissions.*duration",
        "a file of codecarbon",
        "Load it with `wattledger ingest codecarbon`",
    ),
    (
        r"(?i)zone id|carbon.?intensity|intensity_g_per_kwh|^BA,|balancing",
        "grid data",
        "Load it with `wattledger ingest grid`",
    ),
    (r"(?i)^\W*jobid(raw)?\W", "a table of Slurm jobs", "Load it with `wattledger ingest runs`"),
    (
        r"(?i)run_id.*started_at|started_at.*run_id",
        "a table of runs",
        "Load it with `wattledger ingest runs`",
    ),
    (
        r"(?i)valid_from.*energy_kwh",
        "readings of a second meter",
        "Load them with `wattledger ingest meter`",
    ),
    (
        r"^# (HELP|TYPE) ",
        "the page of an exporter, with no times",
        "Let Prometheus scrape it, and name that under [[input.prometheus]]",
    ),
    (
        r"^\s*[\[{]",
        "JSON",
        "Map CSV or Parquet under [sources.NAME]; run records and API answers have commands of their own",
    ),
)
"""First line of a document that is known -> what it is, and what to do."""
