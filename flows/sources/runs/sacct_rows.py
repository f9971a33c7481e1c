"""Rows of Slurm's accounting, as text between separators or as JSON, under the names of sacct's fields."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import combinations_with_replacement, islice
from pathlib import Path
from typing import Any

from flows.errors import BadInput, locate
from flows.files import DAMAGED
from flows.rows import RowFaults

XDMOD_FIELDS = [
    "jobid",
    "jobidraw",
    "cluster",
    "partition",
    "qos",
    "account",
    "group",
    "gid",
    "user",
    "uid",
    "submit",
    "eligible",
    "start",
    "end",
    "elapsed",
    "exitcode",
    "state",
    "nnodes",
    "ncpus",
    "reqcpus",
    "reqmem",
    "reqtres",
    "alloctres",
    "timelimit",
    "nodelist",
    "jobname",
]
"""Fields of a file without a header: the 26 that accounting tools ask for, in this order."""
NEEDED = ("jobid", "start", "end", "state", "alloctres", "nodelist")

_JOB_ID = r"[0-9]+(?:_(?:[0-9]+|\[[^\]|]*\]))?(?:\+[0-9]+)?(?:\.\S+)?"
_TIME = r"(?:[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+|[0-9]{9,10}|Unknown|None|)"
_SPAN = (
    r"(?:(?:[0-9]+-)?[0-9]+:[0-9]{2}(?::[0-9]{2})?(?:\.[0-9]+)?|UNLIMITED|Partition_Limit|INVALID|)"
)
_TRES = r"(?:[a-z]+(?:/[^=,]+)?=[^=,]*(?:,[a-z]+(?:/[^=,]+)?=[^=,]*)*|)"
_FORMS: dict[str, re.Pattern[str]] = {
    **dict.fromkeys(("jobid", "jobidraw"), re.compile(_JOB_ID)),
    **dict.fromkeys(("start", "end", "submit", "eligible"), re.compile(_TIME)),
    **dict.fromkeys(("elapsed", "suspended", "timelimit"), re.compile(_SPAN)),
    **dict.fromkeys(("alloctres", "reqtres"), re.compile(_TRES)),
    **dict.fromkeys(
        ("nnodes", "ncpus", "reqcpus", "alloccpus", "uid", "gid", "elapsedraw"),
        re.compile(r"[0-9.KMG]*"),
    ),
    "state": re.compile(r"[A-Z_]+\+?(?: by [0-9]+)?"),
    "exitcode": re.compile(r"(?:[0-9]+:[0-9]+|)"),
    "nodelist": re.compile(r"(?:None assigned|\(null\)|[A-Za-z0-9](?:[\w.,-]|\[[0-9a-z,-]+\])*|)"),
}
"""What fields look like that sacct fills in itself; by them a row with a bar in a name is put together again."""
_FREE = {
    "jobname",
    "comment",
    "admincomment",
    "systemcomment",
    "submitline",
    "workdir",
    "extra",
    "reason",
    "wckey",
    "container",
    "constraints",
    "stdin",
    "stdout",
    "stderr",
}
"""Fields that people fill in: they may hold the separator, and line breaks."""
_LISTS = {"alloctres", "reqtres", "nodelist"}
"""Fields that hold commas."""
_MOST_WAYS, _MOST_LINES = 2000, 50
"""Ways to put one row together that are tried, and lines that it may go on for."""


def is_sacct(lines: Sequence[str]) -> bool:
    """Whether the first lines of a file are sacct's: its JSON, or fields between separators, with or without names."""
    text = "\n".join(lines)
    if text.lstrip().startswith("{"):
        return re.search(r'"(?:slurm|Slurm)"\s*:|openapi\\?/|data_parser', text) is not None
    return any(_find_header(line) or _is_xdmod(line) for line in lines)


def _find_header(line: str) -> tuple[str, list[str]] | None:
    """Separator and names of a header; the separator is empty where columns are padded instead."""
    match = re.match(r"\ufeff?\s*\w+(\W+?)\s*\w", line)
    if match is None or not re.search(r"(?i)\bjobid\b", line):
        return None
    separator = match[1] if match[1] == "\t" else match[1].strip(" ")
    names = line.strip("\ufeff\r\n ").split(separator) if separator else line.split()
    lowered = [name.strip().lower() for name in names]
    if lowered[-1] == "":
        # --parsable ends lines with a separator, --parsable2 does not.
        lowered.pop()
    is_table = separator != "|" and not {"alloctres", "nodelist", "elapsed"} & set(lowered)
    if "jobid" not in lowered or "run_id" in lowered or (is_table and separator):
        return None
    return separator, lowered


def _is_xdmod(line: str) -> bool:
    fields = line.split("|")
    return len(fields) >= len(XDMOD_FIELDS) and re.fullmatch(_JOB_ID, fields[0]) is not None


Row = tuple[int, Mapping[str, str] | None]
"""Number of a row, and its fields by name; None where it was set aside."""


def read_rows(path: Path, plain: Path, faults: RowFaults) -> Iterator[Row]:
    """Read the rows of a file.

    Args:
        path: The file, for messages.
        plain: Its text.
        faults: Takes the rows that cannot be put together.

    Raises:
        BadInput: a field is missing, or the file is not what it seems.
    """
    with plain.open(encoding="utf-8-sig", errors="replace", newline="\n") as file:
        first = file.read(4096).lstrip()
    if first.startswith("{"):
        return _read_json(path, plain, faults)
    return _read_text(path, plain, faults)


def _read_text(path: Path, plain: Path, faults: RowFaults) -> Iterator[Row]:
    separator, names = "|", XDMOD_FIELDS
    is_begun = is_whole = False
    with plain.open(encoding="utf-8-sig", errors="replace", newline="\n") as file:
        lines = enumerate((line.rstrip("\r\n") for line in file), 1)
        waiting: list[tuple[int, str]] = []
        while (numbered := waiting.pop(0) if waiting else next(lines, None)) is not None:
            number, line = numbered
            if not line.strip():
                continue
            if header := _find_header(line):
                separator, names = header
                _check_names(path, number, separator, names)
                is_begun = True
                continue
            if not is_begun and not _is_xdmod(line):
                yield number, None
                faults.skip("lines before the first row")
                continue
            is_begun = True
            if DAMAGED in line:
                faults.add(number, "bytes that are not text", "", line, "Remove the line")
                yield number, None
                continue
            fields = _split(line, separator)
            if len(fields) < len(names):
                # A line break in a name or comment.
                waiting += islice(lines, _MOST_LINES - len(waiting))
                taken, fields = _join_lines(fields, waiting, separator, len(names))
                del waiting[:taken]
            row = _name_fields(fields, names, separator)
            if row is None and _goes_on(fields, names, after_row=is_whole):
                faults.skip("lines that go on with a comment")
                yield number, None
                continue
            is_whole = row is not None
            if row is None:
                faults.add(
                    number,
                    f"{len(fields)} fields, expected {len(names)}",
                    "",
                    line,
                    "Leave out the fields that people fill in, or separate with --delimiter=@@",
                )
            yield number, row


def _goes_on(fields: Sequence[str], names: Sequence[str], *, after_row: bool) -> bool:
    """Whether a line is the rest of the last field of the row before it."""
    return (
        after_row
        and names[-1] in _FREE
        and names[0] == "jobid"
        and len(fields) < len(names)
        and not re.match(r"[0-9]+[._+|0-9]*", fields[0])
    )


def _check_names(path: Path, number: int, separator: str, names: Sequence[str]) -> None:
    """Refuse a file without what runs are built from."""
    if not separator:
        raise BadInput(
            "sacct padded and cut its columns",
            where=locate(path, number),
            remedy="Ask again with sacct --parsable2",
        )
    if missing := [name for name in NEEDED if name not in names]:
        raise BadInput(
            f"no field {missing[0]!r}",
            where=locate(path, number),
            remedy=f"Ask sacct for --format={','.join(NEEDED)},elapsed,submit,cluster,user,jobname",
        )


def _split(line: str, separator: str) -> list[str]:
    if separator == "," and '"' in line:
        return next(csv.reader([line]), [])
    return line.split(separator)


def _join_lines(
    fields: list[str], following: Sequence[tuple[int, str]], separator: str, count: int
) -> tuple[int, list[str]]:
    """Put the lines after a short one to it, up to the number of fields; how many, and the fields."""
    joined = list(fields)
    for taken, (_, line) in enumerate(following, 1):
        more = _split(line, separator)
        if (re.fullmatch(_JOB_ID, more[0].strip()) and len(more) > 1) or _find_header(line):
            break
        joined = [*joined[:-1], f"{joined[-1]}\n{more[0]}", *more[1:]]
        if len(joined) >= count:
            return taken, joined
    return 0, fields


def _name_fields(
    fields: Sequence[str], names: Sequence[str], separator: str
) -> dict[str, str] | None:
    """The fields of a row by name; None where it cannot be told which is which.

    Where there are more than names, some that people fill in hold the separator. Every way to put them
    together is tried; the fields that sacct fills in tell which is right. What differs between ways
    that fit equally (two names beside each other) is left empty.
    """
    if len(fields) == len(names) + 1 and fields[-1] == "" and names[-1] not in _FREE:
        fields = fields[:-1]
    if len(fields) == len(names):
        return dict(zip(names, fields, strict=True))
    free = [i for i, name in enumerate(names) if name in _FREE]
    if separator == ",":
        free = sorted({*free, *(i for i, name in enumerate(names) if name in _LISTS)})
    over = len(fields) - len(names)
    if over < 0 or not free or over > 200:
        return None
    if fields[-1] == "" and names[-1] in _FREE:
        # --parsable ends lines with a separator.
        fields, over = fields[:-1], over - 1
    ways = list(islice(combinations_with_replacement(free, over), _MOST_WAYS + 1))
    if len(ways) > _MOST_WAYS:
        return None
    rows = [row for way in ways if _fits(row := _merge(fields, names, way, separator))]
    if not rows:
        return None
    differing = {name for name in names if len({row[name] for row in rows}) > 1}
    if differing - _FREE:
        return None
    return {name: "" if name in differing else value for name, value in rows[0].items()}


def _merge(
    fields: Sequence[str], names: Sequence[str], way: Sequence[int], separator: str
) -> dict[str, str]:
    """The fields of a row by name, where each place in `way` takes one more field than its own."""
    row, place = dict[str, str](), 0
    for index, name in enumerate(names):
        width = 1 + way.count(index)
        row[name] = separator.join(fields[place : place + width])
        place += width
    return row


def _fits(row: Mapping[str, str]) -> bool:
    """Whether the fields that sacct fills in look as it writes them, as far as they tell one from another."""
    return all(
        form.fullmatch(row[name].strip()) is not None
        for name, form in _FORMS.items()
        if name in row
    )


def _read_json(path: Path, plain: Path, faults: RowFaults) -> Iterator[Row]:
    """Rows of `sacct --json` of Slurm 21.08 to 25.05 (data_parser 0.0.37 to 0.0.43)."""
    try:
        content = json.loads(plain.read_text("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise BadInput(
            f"not JSON: {error.msg}", where=locate(path, error.lineno), remedy="Ask sacct again"
        ) from None
    jobs = content.get("jobs") if isinstance(content, dict) else None
    if not isinstance(jobs, list):
        raise BadInput("no list of jobs", where=str(path), remedy="Give the answer of sacct --json")
    for number, job in enumerate(jobs, 1):
        try:
            row = _flatten_job(job)
        except (AttributeError, TypeError, ValueError, KeyError, OverflowError) as error:
            faults.add(number, f"not a job as sacct writes it: {error}", "", "", "Ask sacct again")
            yield number, None
        else:
            yield number, row


def _flatten_job(job: Mapping[str, Any]) -> dict[str, str]:
    """A job of sacct's JSON under the names of its fields in text."""
    times = job["time"]
    array, het = job.get("array") or {}, job.get("het") or {}
    raw_id = _unpack(job["job_id"])
    job_id = str(raw_id)
    if _unpack(array.get("job_id")) and (task := _unpack(array.get("task_id"))) is not None:
        job_id = f"{_unpack(array['job_id'])}_{task}"
    elif _unpack(array.get("job_id")) and array.get("task"):
        job_id = f"{_unpack(array['job_id'])}_[{array['task']}]"
    elif _unpack(het.get("job_id")):
        job_id = f"{_unpack(het['job_id'])}+{_unpack(het.get('job_offset')) or 0}"
    state = job["state"]
    current = state["current"] if isinstance(state, dict) else state
    states = [current] if isinstance(current, str) else list(current)
    association = job.get("association") or {}
    code = job.get("exit_code") or {}
    signal = code.get("signal") or {}
    return {
        "jobid": job_id,
        "jobidraw": str(raw_id),
        "cluster": str(job.get("cluster") or association.get("cluster") or ""),
        "user": str(job.get("user") or association.get("user") or ""),
        "account": str(job.get("account") or association.get("account") or ""),
        "partition": str(job.get("partition") or ""),
        "qos": str(job.get("qos") or ""),
        "jobname": str(job.get("name") or ""),
        "submit": _format_epoch(times.get("submission")),
        "start": _format_epoch(times["start"]),
        "end": _format_epoch(times["end"]),
        "elapsedraw": str(_unpack(times.get("elapsed")) or ""),
        "suspendedraw": str(_unpack(times.get("suspended")) or 0),
        "state": str(states[0] if states else ""),
        "exitcode": f"{_unpack(code.get('return_code')) or 0}:"
        f"{_unpack(signal.get('id', signal.get('signal_id'))) or 0}",
        "nnodes": str(_unpack(job.get("allocation_nodes")) or ""),
        "alloctres": ",".join(map(_format_tres, (job.get("tres") or {}).get("allocated") or [])),
        "nodelist": str(job.get("nodes") or ""),
    }


def _unpack(value: Any) -> int | None:
    """A number, as it is or as later versions wrap it: {"set": true, "infinite": false, "number": 7}."""
    if isinstance(value, dict):
        value = value.get("number") if value.get("set", True) else None
    if value is None or value == "":
        return None
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(f"{value} is no whole number")
    return int(value)


def _format_epoch(value: Any) -> str:
    seconds = _unpack(value)
    if not seconds:
        return ""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _format_tres(tres: Mapping[str, Any]) -> str:
    name = f"{tres['type']}/{tres['name']}" if tres.get("name") else str(tres["type"])
    return f"{name}={_unpack(tres.get('count')) or 0}"
