"""nvidia-smi logs as people have them, good and bad."""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest

from flows.errors import BadInput, UsageError
from flows.settings import Settings
from flows.sources.gpu import reader
from flows.sources.gpu.nvidia_smi import Options
from flows.sources.gpu.staged import Staged

HEADER = "timestamp, index, name, power.draw [W], utilization.gpu [%], memory.used [MiB]"
LINES = [
    "2025/07/26 23:32:09.703, 0, NVIDIA H100 80GB HBM3, 69.32 W, 0 %, 132 MiB",
    "2025/07/26 23:32:09.706, 1, NVIDIA H100 80GB HBM3, 72.45 W, 3 %, 17 MiB",
    "2025/07/26 23:32:10.703, 0, NVIDIA H100 80GB HBM3, 170.10 W, 90 %, 132 MiB",
    "2025/07/26 23:32:10.706, 1, NVIDIA H100 80GB HBM3, 172.00 W, 91 %, 17 MiB",
]
UTC = Options(host="n1", tz="UTC")


def stage(
    text: str | bytes, tmp_path: Path, options: Options = UTC, name: str = "log.csv"
) -> Staged:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    project = Settings()
    project.root = tmp_path
    return reader.stage(path, project, options)


def read(
    text: str | bytes, tmp_path: Path, options: Options = UTC, name: str = "log.csv"
) -> pl.DataFrame:
    return pl.read_parquet(stage(text, tmp_path, options, name).path)


def log(*lines: str, header: str = HEADER) -> str:
    return "\n".join([header, *(lines or LINES)]) + "\n"


def test_with_units(tmp_path: Path) -> None:
    readings = read(log(), tmp_path)
    assert readings["gpu_uuid"].to_list() == ["n1/gpu0", "n1/gpu0", "n1/gpu1", "n1/gpu1"]
    assert readings["power_mw"].to_list() == [69_320, 170_100, 72_450, 172_000]
    assert readings["mem_used_mib"].to_list() == [132, 132, 17, 17]
    assert readings["model"].unique().to_list() == ["NVIDIA H100 80GB HBM3"]
    assert str(readings["ts"][0]) == "2025-07-26 23:32:09.703000+00:00"


def test_without_units_and_in_another_order(tmp_path: Path) -> None:
    text = "power.draw,uuid,timestamp\n69.3,GPU-1,2025/07/26 23:32:09.703\n"
    readings = read(text, tmp_path, Options(tz="UTC"))
    assert readings.select("gpu_uuid", "power_mw", "util_pct").row(0) == ("GPU-1", 69_300, None)


@pytest.mark.parametrize(
    "unavailable", ["[N/A]", "N/A", "[Not Supported]", "[Unknown Error]", "[GPU is lost]", ""]
)
def test_what_is_not_available_is_null_never_zero(unavailable: str, tmp_path: Path) -> None:
    text = log(LINES[0], LINES[2].replace("170.10 W", unavailable).replace("90 %", unavailable))
    readings = read(text, tmp_path)
    assert readings["power_mw"].to_list() == [69_320, None]
    assert readings["util_pct"].to_list() == [0, None]


def test_repeated_headers_and_blank_lines_are_skipped(tmp_path: Path) -> None:
    staged = stage(log(*LINES[:2], "", HEADER, *LINES[2:]), tmp_path)
    assert (staged.readings, staged.rows_read, staged.rows_skipped) == (4, 5, 1)


@pytest.mark.parametrize(
    "tail", ["2025/07/26 23:32:11.7", "2025/07/26 23:32:11.703, 0, NVIDIA H100", LINES[2][:-4]]
)
def test_a_cut_last_line_is_left_out_and_counted(tail: str, tmp_path: Path) -> None:
    staged = stage(log() + tail, tmp_path)
    assert (staged.readings, staged.rows_read, staged.rows_skipped) == (4, 5, 1)
    assert staged.faults.count == 0


def test_a_last_line_without_newline_that_is_whole_is_kept(tmp_path: Path) -> None:
    assert stage(log().rstrip("\n"), tmp_path).rows_read == 4


def test_the_best_power_column_is_taken(tmp_path: Path) -> None:
    text = (
        "timestamp, index, power.draw [W], power.draw.average [W], power.draw.instant [W]\n"
        "2025/07/26 23:32:09, 0, 1 W, 2 W, 3 W\n"
    )
    assert read(text, tmp_path).select("power_mw", "power_source").row(0) == (3000, "instant")


def test_compressed_and_utf16_logs(tmp_path: Path) -> None:
    assert read(gzip.compress(log().encode()), tmp_path, name="log.csv.gz").height == 4
    assert read(log().encode("utf-16"), tmp_path).height == 4
    assert read(b"\xef\xbb\xbf" + log().encode(), tmp_path).height == 4


def sweeps(gpus: int, count: int, *, drop: int | None = None) -> str:
    lines = [
        f"2025/07/26 10:{i // 600:02d}:{i // 10 % 60:02d}.{i % 10}0{min(g, 9)}, {100 + g}.0 W"
        for i in range(count)
        for g in range(gpus)
    ]
    if drop is not None:
        del lines[drop]
    return "timestamp, power.draw [W]\n" + "\n".join(lines) + "\n"


@pytest.mark.parametrize("gpus", [1, 2, 4, 8])
def test_gpus_are_told_by_their_place_in_the_sweep(gpus: int, tmp_path: Path) -> None:
    readings = read(sweeps(gpus, 100), tmp_path)
    by_gpu = readings.group_by("gpu_uuid").agg(pl.col("power_mw").unique())
    assert {u: p for u, (p,) in by_gpu.iter_rows()} == {
        f"n1/gpu{g}": (100 + g) * 1000 for g in range(gpus)
    }


def test_a_device_that_goes_missing_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"row \d+: the rows do not come 4 to a sweep"):
        stage(sweeps(4, 100, drop=202), tmp_path)


def test_local_times_need_a_zone(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"row 2.*no|no time zone.*--tz|time zone"):
        stage(log(), tmp_path, Options(host="n1"))
    readings = read(log(), tmp_path, Options(host="n1", tz="Europe/Berlin"))
    assert str(readings["ts"][0]) == "2025-07-26 21:32:09.703000+00:00"
    readings = read(log(), tmp_path, Options(host="n1", tz="+05:30"))
    assert str(readings["ts"][0]) == "2025-07-26 18:02:09.703000+00:00"
    with pytest.raises(UsageError, match="unknown time zone 'Nowhere/City'"):
        stage(log(), tmp_path, Options(host="n1", tz="Nowhere/City"))


def night(*clock: str) -> str:
    lines = [f"2020/10/25 {c}.000, 0, 100 W" for c in clock]
    return "timestamp, index, power.draw [W]\n" + "\n".join(lines) + "\n"


def test_the_hour_that_comes_twice_is_told_by_the_order(tmp_path: Path) -> None:
    berlin = Options(host="n1", tz="Europe/Berlin")
    both = read(
        night("01:59:00", "02:30:00", "02:59:59", "02:00:01", "02:30:00", "03:00:00"),
        tmp_path,
        berlin,
    )
    assert both["ts"].dt.strftime("%H:%M:%S").to_list() == [
        "23:59:00",
        "00:30:00",
        "00:59:59",
        "01:00:01",
        "01:30:00",
        "02:00:00",
    ]
    first = read(night("01:59:00", "02:30:00"), tmp_path, berlin)
    assert first["ts"].dt.hour().to_list() == [23, 0]
    second = read(night("02:30:00", "03:00:00"), tmp_path, berlin)
    assert second["ts"].dt.hour().to_list() == [1, 2]
    staged = stage(night("01:59:00", "02:30:00", "03:00:00"), tmp_path, berlin)
    [row] = staged.faults.rows.to_dicts()
    assert row["row_no"] == 3
    assert "showed this time twice" in row["reason"]


def test_a_time_the_clock_never_showed_is_refused(tmp_path: Path) -> None:
    text = "timestamp, index, power.draw [W]\n2020/03/29 02:30:00.000, 0, 100 W\n"
    with pytest.raises(BadInput, match=r"row 2, column 'timestamp'.*02:30.*never showed"):
        stage(text, tmp_path, Options(host="n1", tz="Europe/Berlin"))


def test_index_without_host_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--host"):
        stage(log(), tmp_path, Options(tz="UTC"))


BAD = {
    "empty": (b"", "the file is empty"),
    "header only": (f"{HEADER}\n".encode(), "there is a header but no reading"),
    "binary": (bytes(range(256)) * 8, "row 1: this is not a text file"),
    "cut archive": (gzip.compress(log().encode())[:-9], "cannot be unpacked"),
    "no power": (b"timestamp, index\n2025/07/26 23:32:09, 0\n", r"row 1.*no column 'power.draw'"),
    "no time": (b"index, power.draw [W]\n0, 5 W\n", "no column 'timestamp'"),
    "too large": (log(LINES[0].replace("69.32", "1e30")).encode(), "out of range for power_mw"),
    "no reading at all": (
        log(
            *(line.replace("69.32 W", "[N/A]").replace("72.45 W", "[N/A]") for line in LINES[:2])
        ).encode(),
        "no reading has a power",
    ),
    "doubled column": (b"timestamp, power.draw [W], power.draw [W]\nx, 1, 2\n", "stands twice"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_logs_are_refused_with_place_and_remedy(case: str, tmp_path: Path) -> None:
    text, message = BAD[case]
    name = "log.csv.gz" if case == "cut archive" else "log.csv"
    with pytest.raises(BadInput, match=message) as caught:
        stage(text, tmp_path, name=name)
    assert str(tmp_path / name) in str(caught.value)


BAD_ROWS = {
    "not a number": (LINES[1].replace("72.45 W", "12x W"), "not a usable value", "12x W"),
    "nan": (LINES[1].replace("72.45", "nan"), "not a usable value", "nan W"),
    "infinite": (LINES[1].replace("72.45", "inf"), "not a usable value", "inf W"),
    "not a time": (LINES[1].replace("2025/07/26", "26th"), "not a time", "26th"),
    "far future": (LINES[1].replace("2025", "2525"), "in the future", "2525/07/26"),
    "ragged": ("oops, what", "2 fields where the header has 6", "oops, what"),
    "joined": (LINES[1][:40] + LINES[2], "8 fields where the header has 6", "2025/07/26"),
    "joined in the time": (
        LINES[1][:18] + LINES[2],
        "not a time",
        "2025/07/26 23:32:02025/07/26 23:32:10.703",
    ),
    "cut": (LINES[1][:-25], "3 fields where the header has 6", "2025/07/26"),
    "NUL bytes": (LINES[1].replace("H100", "\0\0"), "bytes that are not text", ""),
    "another unit": (LINES[1].replace("72.45 W", "72.45 J"), "not a unit of power.draw", "72.45 J"),
    "larger than anything": (
        LINES[1].replace("72.45", "1e30"),
        "out of range for power_mw",
        "1.0",
    ),
    "no index": (LINES[1].replace(", 1, ", ", [N/A], "), "not a GPU index", ""),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_is_set_aside_with_number_and_reason(case: str, tmp_path: Path) -> None:
    row, reason, value = BAD_ROWS[case]
    staged = stage(log(LINES[0], row, *LINES[2:]), tmp_path)
    [fault] = staged.faults.rows.to_dicts()
    assert fault["row_no"] == 3
    assert reason in fault["reason"]
    assert fault["raw_value"].startswith(value)
    assert (staged.rows_read, staged.readings, staged.rows_skipped) == (4, 3, 0)
    # Past the threshold, the file is not what it seems.
    with pytest.raises(BadInput, match=r"row 3.*1 more of 4 rows cannot be used"):
        stage(log(LINES[0], row, row.replace("72.45", "72.46"), LINES[3]), tmp_path)


MESSAGES = [
    "Failed to initialize NVML: Unknown Error",
    "Unable to determine the device handle for GPU0000:3B:00.0: GPU is lost.  Reboot the system",
    "No devices were found",
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
]


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_between_readings_are_skipped_and_counted(message: str, tmp_path: Path) -> None:
    staged = stage("\n".join([message, HEADER, *LINES[:2], message, "", *LINES[2:]]), tmp_path)
    assert (staged.readings, staged.faults.count) == (4, 0)
    assert staged.faults.skipped == {"messages between readings": 2}


def test_a_header_with_other_columns_counts_from_there_on(tmp_path: Path) -> None:
    other = "power.draw [W], index, timestamp"
    staged = stage(log(*LINES, other, "99.00 W, 0, 2025/07/26 23:32:12.703"), tmp_path)
    readings = pl.read_parquet(staged.path).sort("ts")
    assert readings.row(-1, named=True)["power_mw"] == 99_000
    assert staged.faults.skipped == {"repeated headers": 1}
    without = stage(log(*LINES, "timestamp, index", "2025/07/26 23:32:12.703, 0"), tmp_path)
    [fault] = without.faults.rows.to_dicts()
    assert "header without timestamp or power" in fault["reason"]


def test_a_restarted_recorder_begins_a_new_sweep(tmp_path: Path) -> None:
    """A sweep cut by a restart is followed by a header; blank lines mean nothing."""
    header, *lines = sweeps(4, 60).splitlines()
    text = "\n".join([header, *lines[:102], header, *lines[104:150], "", *lines[150:]]) + "\n"
    readings = read(text, tmp_path)
    by_gpu = readings.group_by("gpu_uuid").agg(pl.col("power_mw").unique())
    assert {u: p for u, (p,) in by_gpu.iter_rows()} == {
        f"n1/gpu{g}": (100 + g) * 1000 for g in range(4)
    }
