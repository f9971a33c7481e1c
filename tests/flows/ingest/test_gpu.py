"""Loading: exactly once, all or nothing, and nothing bad gets in or vanishes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest

from flows.accounting.compute import compute
from flows.errors import BadInput
from flows.ingest import gpu_profile
from flows.ingest.gpu import ingest_gpu
from flows.ingest.grid import ingest_grid
from flows.ingest.runs import ingest_runs
from flows.settings import Settings
from flows.sources.gpu import segments
from flows.sources.gpu.nvidia_smi import Options
from flows.sources.gpu.staged import Staged
from flows.sources.grid import layouts
from flows.warehouse.frames import query_rows
from flows.warehouse.store import Store, store_of
from tests import preloaded
from tests.conftest import T0, grid_csv, make_project, runs_csv, segment

UTC_OPTIONS = Options(host="n1", tz="UTC")


def ask(project: Settings, sql: str) -> list[tuple[object, ...]]:
    con = store_of(project).connect(read_only=True)
    try:
        return con.execute(sql).fetchall()
    finally:
        con.close()


def log(folder: Path, lines: list[str], name: str = "log.csv") -> Path:
    path = folder / name
    header = "timestamp, index, power.draw [W], utilization.gpu [%]"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


GOOD = [f"2025/07/26 10:00:{s:02d}.000, 0, {100 + s}.0 W, 50 %" for s in range(30)]
LATER = [
    f"2025/07/26 10:{1 + s // 60:02d}:{s % 60:02d}.000, 0, {100 + s % 50}.0 W, 50 %"
    for s in range(210)
]


def test_the_same_file_again_or_under_another_name_loads_nothing(project: Settings) -> None:
    first = segment(project.root)
    other = project.root / "copy.parquet"
    shutil.copyfile(first, other)
    assert [o.verdict for o in ingest_gpu(project, [first, other])] == ["loaded", "known"]
    before = ask(project, "FROM gpu_reading ORDER BY ALL")
    assert [o.verdict for o in ingest_gpu(project, [other, first])] == ["known", "known"]
    assert ask(project, "FROM gpu_reading ORDER BY ALL") == before
    assert len(before) == 3600


def test_files_loaded_together_keep_their_own_readings(
    project: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever columns they have, how many go into one transaction, and if one was there in part."""
    monkeypatch.setattr("flows.ingest.gpu_store._AT_ONCE", 3000)
    ingest_gpu(project, [log(project.root, GOOD[:10])], UTC_OPTIONS)
    paths = []
    for number in range(5):
        path = segment(project.root, f"node{number:02d}", gpus=1, seconds=100 * (number + 1))
        frame = pl.read_parquet(path)
        if number % 2:
            frame = frame.drop("temp_c", "mem_used_mib").with_columns(
                power_limit_mw=pl.lit(700_000, pl.Int32)
            )
        frame.write_parquet(path)
        paths.append(path)
    paths.insert(2, log(project.root, GOOD))
    outcomes = ingest_gpu(project, paths, UTC_OPTIONS)
    assert [(o.verdict, o.rows_loaded) for o in outcomes] == [
        ("loaded", 100),
        ("loaded", 200),
        ("loaded", 20),
        ("loaded", 300),
        ("loaded", 400),
        ("loaded", 500),
    ]
    found = ask(
        project,
        "SELECT s.source_name, g.host, s.rows_loaded, count(*), count(temp_c), count(power_limit_mw) "
        "FROM gpu_reading JOIN segment AS s USING (segment_key) JOIN gpu AS g USING (gpu_key) "
        "WHERE s.source_name LIKE '%node0%' GROUP BY ALL ORDER BY 1",
    )
    segments_of = [path for path in paths if path.suffix == ".parquet"]
    assert found == [
        (str(path), path.stem, rows, rows, rows * (1 - odd), rows * odd)
        for path, rows, odd in zip(
            segments_of, (100, 200, 300, 400, 500), (0, 1, 0, 1, 0), strict=True
        )
    ]


@pytest.mark.parametrize("odd", ["nothing", "types", "damage"])
def test_small_files_are_looked_at_together_as_each_alone(odd: str, project: Settings) -> None:
    whole = pl.read_parquet(segment(project.root, gpus=2, seconds=300))
    one_gpu = whole.filter(pl.col("gpu_uuid") == whole["gpu_uuid"][0])
    frames = [whole, one_gpu.head(100), one_gpu.tail(200).drop("util_pct", "model"), whole.head(1)]
    if odd == "types":
        frames.append(one_gpu.with_columns(pl.col("power_mw").cast(pl.Int64)))
    files = []
    for number, frame in enumerate(frames):
        path = project.root / f"part[{number}].parquet"
        segments.write(frame, path) if number != 2 else frame.write_parquet(path)
        files.append(segments.read(path, Staged(path, str(number), "", path, 0)))
    if odd == "damage":
        content = files[1].path.read_bytes()
        files[1].path.write_bytes(bytes(len(content) // 2) + content[len(content) // 2 :])
    together = gpu_profile.read_profiles(files)
    alone = [gpu_profile.read_profiles([file])[0] for file in files]
    for number, (facts, same) in enumerate(zip(together, alone, strict=True)):
        if odd == "damage" and number == 1:
            assert isinstance(facts, BadInput)
            assert "part[1].parquet" in str(facts) == str(same)
            continue
        assert isinstance(facts, pl.DataFrame)
        assert isinstance(same, pl.DataFrame)
        assert facts.equals(same)
        assert facts.schema == same.schema
        assert facts["rows_read"].sum() == frames[number].height


def test_a_batch_of_files_settles_each_in_its_order(project: Settings) -> None:
    """One that another of the batch has in part waits for it; one that is refused holds up nobody."""
    whole = pl.read_parquet(segment(project.root, gpus=1, seconds=600))
    cuts = {"a": (0, 300), "b": (200, 500), "c": (450, 600), "d": (500, 600)}
    paths = []
    for name, (start, end) in cuts.items():
        part = whole.slice(start, end - start)
        if name == "b":
            part = part.with_columns(power_mw=pl.lit(-1, pl.Int32))
        paths.append(project.root / f"{name}.parquet")
        segments.write(part, paths[-1])
    outcomes = ingest_gpu(project, paths)
    assert [(o.verdict, o.rows_loaded, o.rows_duplicate) for o in outcomes] == [
        ("loaded", 300, 0),
        ("quarantined", 0, 0),
        ("loaded", 150, 0),
        ("loaded", 0, 100),
    ]
    assert ask(project, "SELECT count(*), count(DISTINCT ts) FROM gpu_reading") == [(450, 450)]


def test_a_log_that_was_kept_every_minute_as_it_grew(project: Settings) -> None:
    """Each file has all of the one before; given in one call, as in a folder that somebody kept."""
    paths = [log(project.root, GOOD[: 2 * n], f"log{n:02d}.csv") for n in range(1, 16)]
    outcomes = ingest_gpu(project, paths, UTC_OPTIONS)
    assert [(o.verdict, o.rows_loaded, o.rows_duplicate) for o in outcomes] == [
        ("loaded", 2, 2 * n) for n in range(15)
    ]


@pytest.mark.parametrize("overlapping", [False, True])
def test_damage_where_the_gate_does_not_look_keeps_no_other_file_out(
    overlapping: bool, project: Settings
) -> None:
    paths = [segment(project.root, f"node{n}", gpus=1) for n in range(3)]
    if overlapping:
        part = project.root / "part.parquet"
        segments.write(pl.read_parquet(paths[1]).head(10), part)
        ingest_gpu(project, [part])
    group = pq.read_metadata(paths[1]).row_group(0)
    [column] = [c for c in map(group.column, range(14)) if c.path_in_schema == "temp_c"]
    content = bytearray(paths[1].read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    content[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    paths[1].write_bytes(content)
    outcomes = ingest_gpu(project, paths)
    assert [o.verdict for o in outcomes] == ["loaded", "quarantined", "loaded"]
    assert "node1.parquet: damaged Parquet" in outcomes[1].reason
    [(count,)] = ask(project, "SELECT count(*) FROM gpu_reading")
    assert count == 2 * 1800 + 10 * overlapping


def test_a_log_that_grew_adds_only_its_new_rows(project: Settings) -> None:
    ingest_gpu(project, [log(project.root, GOOD[:10])], UTC_OPTIONS)
    (grown,) = ingest_gpu(project, [log(project.root, GOOD)], UTC_OPTIONS)
    assert (grown.verdict, grown.rows_loaded, grown.rows_duplicate) == ("loaded", 20, 10)
    assert ask(project, "SELECT count(*), count(DISTINCT ts) FROM gpu_reading") == [(30, 30)]


def test_a_second_identical_load_changes_no_millijoule(project: Settings) -> None:
    ingest_gpu(project, [segment(project.root)])
    ingest_grid(project, [grid_csv(project.root, [100] * 8)])
    compute(project)
    before = ask(project, "FROM gpu_slot ORDER BY ALL")
    again = pl.read_parquet(project.root / "node01.parquet")
    segments.write(
        again.with_columns(model=pl.lit("the same, written anew")), project.root / "b.parquet"
    )
    (outcome,) = ingest_gpu(project, [project.root / "b.parquet"])
    assert (outcome.rows_loaded, outcome.rows_duplicate) == (0, 3600)
    compute(project)
    assert ask(project, "FROM gpu_slot ORDER BY ALL") == before


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_splitting_into_segments_changes_no_millijoule(
    order: list[int], project: Settings, tmp_path: Path
) -> None:
    whole = pl.read_parquet(segment(tmp_path))
    cuts = [T0 + timedelta(seconds=s) for s in (-1, 333, 700, 1111, 99_999)]
    paths = []
    for i in order:
        part = whole.filter((pl.col("ts") >= cuts[i]) & (pl.col("ts") < cuts[i + 1]))
        path = tmp_path / f"part{i}.parquet"
        segments.write(part, path)
        paths.append(path)
    # Interleaved on top: one GPU's part in two files, every other reading.
    odd = pl.read_parquet(paths[0])
    for n in (0, 1):
        segments.write(
            odd.filter(pl.int_range(pl.len()).over("gpu_uuid") % 2 == n),
            tmp_path / f"half{n}.parquet",
        )
    for given, files in (
        ("a", [segment(tmp_path)]),
        ("b", [tmp_path / "half1.parquet", tmp_path / "half0.parquet", *paths[1:]]),
    ):
        target = make_project(tmp_path / given)
        ingest_grid(target, [grid_csv(tmp_path, [100] * 8)])
        for file in files:
            assert ingest_gpu(target, [file])[0].verdict == "loaded"
        compute(target)
    tables = [
        ask(
            make_project(tmp_path / n),
            "SELECT * EXCLUDE (gpu_key), gpu_uuid FROM gpu_slot JOIN gpu USING (gpu_key) ORDER BY ALL",
        )
        for n in "ab"
    ]
    assert tables[0] == tables[1]


ROWS = {
    "negative power": (
        [*GOOD, "2025/07/26 10:00:40.000, 0, -5.0 W, 50 %"],
        [(32, "power_mw", "-5000", "No power is below zero")],
    ),
    "absurd power": (
        [*GOOD[:9], GOOD[9].replace("109.0", "90000.0"), *GOOD[10:]],
        [(11, "power_mw", "90000000", "No power exceeds")],
    ),
    "utilisation": (
        [*GOOD, "2025/07/26 10:00:40.000, 0, 9.0 W, 150 %"],
        [(32, "util_pct", "150", "between 0 and 100 %")],
    ),
    "future": (
        [*GOOD, "2999/07/26 10:00:40.000, 0, 5.0 W, 50 %"],
        [(32, "timestamp", "2999", "in the future")],
    ),
    "clock never set": (
        ["1970/01/01 00:00:40.000, 0, 5.0 W, 50 %", *GOOD],
        [(2, "timestamp", "1970", "before 2000")],
    ),
    "before NVML": (
        ["2003/01/01 00:00:40.000, 0, 5.0 W, 50 %", *GOOD],
        [(2, "ts", "2003", "before NVML existed")],
    ),
    "two values at one time": (
        [*GOOD, GOOD[-1].replace("129.0", "131.0"), *LATER],
        [
            (31, "power_mw", "129000", "two different readings"),
            (32, "power_mw", "131000", "two different readings"),
        ],
    ),
}


@pytest.mark.parametrize("case", ROWS)
def test_bad_rows_are_set_aside_and_the_rest_of_the_file_loads(
    case: str, project: Settings
) -> None:
    lines, expected = ROWS[case]
    [outcome] = ingest_gpu(project, [log(project.root, lines, "bad.csv")], UTC_OPTIONS)
    assert outcome.verdict == "loaded", outcome.reason
    assert outcome.rows_quarantined == len(expected)
    assert outcome.rows_read == len(lines) == outcome.rows_loaded + len(expected)
    rows = ask(
        project, "SELECT row_no, field_name, raw_value, reason FROM quarantined_row ORDER BY row_no"
    )
    for (row_no, field, value, reason), row in zip(expected, rows, strict=True):
        assert row[:2] == (row_no, field)
        assert str(row[2]).startswith(value)
        assert reason in str(row[3])
    # What was loaded is what the file without those rows holds.
    other = make_project(project.root / "other")
    good = [line for n, line in enumerate(lines, 2) if n not in {e[0] for e in expected}]
    ingest_gpu(other, [log(other.root, good)], UTC_OPTIONS)
    query = "SELECT ts, power_mw, util_pct FROM gpu_reading ORDER BY ALL"
    assert ask(project, query) == ask(other, query)
    assert any("set aside" in warning for warning in outcome.warnings)


TIME_BACK = [*GOOD[:9], GOOD[4].replace("04.000", "04.500"), *GOOD[9:]]
REFUSED = {
    "time going back": (TIME_BACK, r"row 11, column 'ts': Time never goes back"),
    "too many bad rows": (
        [*GOOD, *(line.replace(".0 W", "9999.0 W") for line in LATER[:30])],
        r"row 32, column 'power_mw'.*No power exceeds",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_is_not_believed_goes_to_quarantine_and_others_go_on(
    case: str, project: Settings
) -> None:
    lines, message = REFUSED[case]
    bad = log(project.root, lines, "bad.csv")
    good = segment(project.root)
    refused, loaded = ingest_gpu(project, [bad, good], UTC_OPTIONS)
    assert (refused.verdict, loaded.verdict) == ("quarantined", "loaded")
    assert re.search(message, refused.reason), refused.reason
    assert "bad.csv" in refused.reason
    assert ask(project, "SELECT count(*) FROM gpu_reading") == [(3600,)]
    [(kept, reason)] = ask(project, "SELECT kept_path, reason FROM quarantine")
    copy = project.root / str(kept)
    assert copy.read_bytes() == bad.read_bytes()
    # What others wrote, and what they may have found, is for the ledger's owner alone.
    assert (copy.stat().st_mode & 0o777, copy.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert reason == refused.reason
    # Offered again it is refused again, and recorded once.
    assert ingest_gpu(project, [bad], UTC_OPTIONS)[0].verdict == "quarantined"
    assert ask(project, "SELECT count(*) FROM quarantine") == [(1,)]


def test_exact_repeats_within_a_file_count_once(project: Settings) -> None:
    (outcome,) = ingest_gpu(project, [log(project.root, [*GOOD, GOOD[-1]])], UTC_OPTIONS)
    assert (outcome.verdict, outcome.rows_loaded, outcome.rows_duplicate) == ("loaded", 30, 1)


def test_a_reading_that_contradicts_a_stored_one_is_refused(project: Settings) -> None:
    ingest_gpu(project, [log(project.root, GOOD)], UTC_OPTIONS)
    other = log(project.root, [GOOD[5].replace("105.0", "106.0")], "other.csv")
    (outcome,) = ingest_gpu(project, [other], UTC_OPTIONS)
    assert outcome.verdict == "quarantined"
    assert "two different readings" in outcome.reason


@pytest.mark.parametrize("case", ["truncated", "wrong type", "no column", "null time", "no rows"])
def test_damaged_segments_are_refused(case: str, project: Settings) -> None:
    path = segment(project.root)
    frame = pl.read_parquet(path)
    if case == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    elif case == "wrong type":
        frame.with_columns(pl.col("power_mw").cast(pl.Float64)).write_parquet(path)
    elif case == "no column":
        frame.drop("ts").write_parquet(path)
    elif case == "null time":
        frame.with_columns(
            ts=pl.when(pl.col("power_mw") > 0).then(None).otherwise("ts")
        ).write_parquet(path)
    else:
        frame.head(0).write_parquet(path)
    (outcome,) = ingest_gpu(project, [path])
    assert outcome.verdict == "quarantined"
    assert str(path) in outcome.reason
    assert ask(project, "SELECT count(*) FROM gpu_reading") == [(0,)]


def test_counter_that_rises_faster_than_the_board_can_draw(project: Settings) -> None:
    path = segment(project.root)
    frame = pl.read_parquet(path)
    jump = frame.with_columns(
        energy_mj=pl.col("energy_mj")
        + (pl.col("ts") > T0 + timedelta(minutes=9)).cast(pl.Int64) * 10**9
    )
    segments.write(jump, path)
    (outcome,) = ingest_gpu(project, [path])
    assert outcome.verdict == "quarantined"
    assert "energy counter never rises faster" in outcome.reason


# Grid


def test_a_revision_supersedes_and_both_are_kept(project: Settings) -> None:
    ingest_grid(project, [grid_csv(project.root, [100, 200, 300])])
    (second,) = ingest_grid(project, [grid_csv(project.root, [100, 250, 300, 400])])
    assert second.rows_loaded == 2
    current = ask(
        project,
        "SELECT intensity_g_per_kwh FROM grid_intensity WHERE superseded_at IS NULL ORDER BY valid_from",
    )
    assert [v for (v,) in current] == [100, 250, 300, 400]
    assert ask(
        project, "SELECT intensity_g_per_kwh FROM grid_intensity WHERE superseded_at IS NOT NULL"
    ) == [(200,)]
    assert (
        ingest_grid(project, [grid_csv(project.root, [100, 250, 300, 400])])[0].verdict == "known"
    )


@pytest.mark.parametrize("value", [-5, 99_999, 3_001])
def test_absurd_intensities_are_set_aside_and_leave_a_gap(value: int, project: Settings) -> None:
    (outcome,) = ingest_grid(project, [grid_csv(project.root, [100.0, float(value), 100.0])])
    assert (outcome.verdict, outcome.rows_loaded, outcome.rows_quarantined) == ("loaded", 2, 1)
    assert ask(project, "SELECT row_no, raw_value::DOUBLE FROM quarantined_row") == [(3, value)]
    assert ask(project, "SELECT intensity_g_per_kwh FROM grid_intensity") == [(100,), (100,)]
    # Two of three are no slip: the file is not what it seems.
    (whole,) = ingest_grid(
        project, [grid_csv(project.root, [100.0, float(value), float(value)], minutes=15)]
    )
    assert whole.verdict == "quarantined"
    assert f"row 3, value '{value}.0'" in whole.reason


def test_overlaps_and_doubled_hours(project: Settings) -> None:
    path = project.root / "g.csv"
    head = "zone,valid_from,intensity_g_per_kwh\n"
    lines = [f"XX,2024-05-01T{h:02d}:00:00Z,{h}" for h in range(6)]
    path.write_text(head + "\n".join([*lines, lines[3]]) + "\n")
    (same,) = ingest_grid(project, [path])
    assert (same.verdict, same.rows_loaded, same.rows_duplicate) == ("loaded", 6, 1)
    path.write_text(head + "\n".join([*lines, "XX,2024-05-01T03:00:00Z,99"]) + "\n")
    (different,) = ingest_grid(project, [path])
    # Nothing tells which of the two is right, so neither is kept; what was stored of that hour stays.
    assert (different.verdict, different.rows_quarantined) == ("loaded", 2)
    assert ask(project, "SELECT row_no FROM quarantined_row ORDER BY 1") == [(5,), (8,)]
    assert ask(project, "SELECT count(*) FROM grid_intensity") == [(6,)]
    path.write_text(head + "\n".join(f"XX,2024-05-01T{h:02d}:30:00Z,{h}" for h in range(6)) + "\n")
    (shifted,) = ingest_grid(project, [path])
    assert "series of another resolution" in shifted.reason


def test_gaps_are_reported_and_left_open(project: Settings) -> None:
    path = project.root / "g.csv"
    lines = [f"XX,2024-05-01T{h:02d}:00:00Z,{h}" for h in range(12) if h != 5]
    path.write_text("zone,valid_from,intensity_g_per_kwh\n" + "\n".join(lines) + "\n")
    (outcome,) = ingest_grid(project, [path])
    assert outcome.verdict == "loaded"
    assert "gap_from=2024-05-01 05:00:00+00:00" in outcome.warnings[0]
    assert ask(project, "SELECT max(valid_to - valid_from) FROM grid_intensity") == [
        (timedelta(hours=1),)
    ]


def test_local_grid_times_across_the_end_of_summer_time(project: Settings) -> None:
    path = project.root / "g.csv"
    clock = ["00:00", "01:00", "02:00", "02:00", "03:00", "04:00"]
    lines = [f"XX,2020-10-25 {c}:00,{i}" for i, c in enumerate(clock)]
    path.write_text("zone,time,intensity\n" + "\n".join(lines) + "\n")
    (outcome,) = ingest_grid(project, [path], layouts.Options(tz="Europe/Berlin"))
    assert (outcome.verdict, outcome.rows_loaded, outcome.warnings) == ("loaded", 6, [])
    [(first, last)] = ask(project, "SELECT min(valid_from), max(valid_to) FROM grid_intensity")
    assert (first, last) == (
        datetime(2020, 10, 24, 22, tzinfo=UTC),
        datetime(2020, 10, 25, 4, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("g.csv", "", "the file is empty"),
        ("g.csv", "zone,time,intensity\n", "header but no row"),
        ("g.csv", "a,b\n1,2\n", "no known layout"),
        ("g.csv", "zone;time;intensity\nX;1;2\n", "'1': not a time"),
        (
            "g.csv",
            "zone,time,intensity\nX,2020-01-01T00:00Z,nan\n",
            "none of 1 rows has a value",
        ),
        (
            "g.csv",
            "zone,time,intensity\nX,yesterday,5\n",
            "row 2, column 'time', value 'yesterday': not a time",
        ),
        ("g.json", '{"status": "no-data", "data": {}}', "holds no intensities (status no-data)"),
        ("g.json", "<html>Too many requests</html>", "not JSON"),
    ],
)
def test_bad_grid_files(name: str, text: str, message: str, project: Settings) -> None:
    path = project.root / name
    path.write_text(text)
    (outcome,) = ingest_grid(project, [path])
    assert outcome.verdict == "quarantined"
    assert message in outcome.reason
    assert str(path) in outcome.reason


# Runs


@pytest.fixture
def with_gpus(project: Settings) -> Settings:
    ingest_gpu(project, [segment(project.root)])
    return project


START, END = "2024-05-01T12:00:00Z", "2024-05-01T12:10:00Z"
RUNS = {
    "unknown gpu": (
        [f"r,{START},{END},node01,7,1"],
        "row 2, column 'gpu', value '7': unknown GPU '7' on host 'node01'",
    ),
    "unknown host": (
        [f"r,{START},{END},nowhere,0,1"],
        "unknown GPU '0' on host 'nowhere'. Known hosts: node01",
    ),
    "ends first": (
        [f"r,{END},{START},node01,0,1"],
        "row 2, column 'ended_at', value '2024-05-01T12:00:00Z': the run ends before it starts",
    ),
    "no start": ([f"r,,{END},node01,0,1"], "no started_at"),
    "no id": ([f",{START},{END},node01,0,1"], "no run_id"),
    "not a time": (
        [f"r,soon,{END},node01,0,1"],
        "row 2, column 'started_at', value 'soon': not a time",
    ),
    "not a share": ([f"r,{START},{END},node01,0,half"], "row 2, column 'share', value 'half'"),
    "share above one": (
        [f"r,{START},{END},node01,0,1.5"],
        "row 2, column 'share', value '1.5': not a share",
    ),
    "negative share": (
        [f"r,{START},{END},node01,0,-0.5"],
        "row 2, column 'share', value '-0.5': not a share",
    ),
    "shares over 100 %": (
        [f"a,{START},{END},node01,0,0.6", f"b,{START},{END},node01,0,0.5"],
        "never add up to more than 100 %",
    ),
    "fields": ([f"r,{START},{END},node01,0,1,2,3"], "8 fields where the header has 6"),
}


@pytest.mark.parametrize("case", RUNS)
def test_bad_run_tables(case: str, with_gpus: Settings) -> None:
    lines, message = RUNS[case]
    path = runs_csv(with_gpus.root, lines)
    (outcome,) = ingest_runs(with_gpus, [path])
    assert outcome.verdict == "quarantined"
    assert message in outcome.reason
    assert str(path) in outcome.reason
    assert ask(with_gpus, "SELECT count(*) FROM training_run") == [(0,)]


def test_shares_are_checked_against_runs_stored_before(with_gpus: Settings) -> None:
    assert (
        ingest_runs(with_gpus, [runs_csv(with_gpus.root, [f"a,{START},{END},node01,0,0.6"])])[
            0
        ].verdict
        == "loaded"
    )
    (second,) = ingest_runs(
        with_gpus, [runs_csv(with_gpus.root, [f"b,{START},{END},node01,0,0.5"])]
    )
    assert "never add up to more than 100 %" in second.reason
    # A run that follows at the very second is fine.
    third = f"c,{END},2024-05-01T12:20:00Z,node01,0,1"
    assert ingest_runs(with_gpus, [runs_csv(with_gpus.root, [third])])[0].verdict == "loaded"


def test_json_toml_and_csv_say_the_same(with_gpus: Settings, tmp_path: Path) -> None:
    forms = {
        "runs.csv": "run_id,started_at,ended_at,host,gpu,share,name,team\n"
        f"r,{START},{END},node01,0-1,0.5,big,nlp\n",
        "runs.json": f'{{"runs": [{{"run_id": "r", "name": "big", "started_at": "{START}", '
        f'"ended_at": "{END}", "labels": {{"team": "nlp"}}, '
        '"allocations": [{"host": "node01", "gpu": "0", "share": 0.5}, {"host": "node01", "gpu": 1, "share": 0.5}]}]}',
        "runs.toml": f'[[run]]\nrun_id = "r"\nname = "big"\nstarted_at = {START}\nended_at = {END}\n'
        'labels = { team = "nlp" }\n[[run.allocation]]\nhost = "node01"\ngpu = "all"\nshare = 0.5\n',
    }
    held = []
    for name, text in forms.items():
        project = make_project(tmp_path / name)
        shutil.copyfile(str(store_of(with_gpus)), str(store_of(project)))
        path = tmp_path / name / name
        path.write_text(text)
        (outcome,) = ingest_runs(project, [path])
        assert outcome.verdict == "loaded", outcome.reason
        held.append(
            ask(
                project,
                "SELECT a.* EXCLUDE (loaded_at), r.name, r.labels FROM run_allocation AS a "
                "JOIN training_run AS r USING (run_id) ORDER BY ALL",
            )
        )
    assert held[0] == held[1] == held[2]
    assert len(held[0]) == 2


def test_a_corrected_run_supersedes_its_revision(with_gpus: Settings) -> None:
    ingest_runs(with_gpus, [runs_csv(with_gpus.root, [f"a,{START},{END},node01,0,1"])])
    (second,) = ingest_runs(with_gpus, [runs_csv(with_gpus.root, [f"a,{START},{END},node01,1,1"])])
    assert second.rows_loaded == 1
    assert ask(with_gpus, "SELECT count(*), count(superseded_at) FROM training_run") == [(2, 1)]
    [(gpu,)] = ask(
        with_gpus,
        "SELECT gpu_index FROM run_allocation JOIN gpu USING (gpu_uuid) WHERE superseded_at IS NULL",
    )
    assert gpu == 1


def test_a_declared_gpu_without_readings_can_hold_a_run(tmp_path: Path) -> None:
    project = make_project(
        tmp_path / "p",
        '\n[[gpu]]\nhost = "ghost"\nindices = [0, 1]\nmodel = "NVIDIA H100 80GB HBM3"\n',
    )
    ingest_gpu(project, [segment(project.root)])
    ingest_grid(project, [grid_csv(project.root, [100] * 8)])
    ingest_runs(project, [runs_csv(project.root, [f"r,{START},{END},ghost,all,1"])])
    compute(project)
    [(energy, filled, measured, gpus)] = ask(
        project,
        "SELECT energy_mj, filled_mj, measured_mj, gpus FROM run_footprint WHERE run_id = 'r'",
    )
    # Two boards at 700 W for ten minutes, none of it measured.
    assert energy == filled == 2 * 700_000 * 600
    assert (measured, gpus) == (0, 2)


def test_nothing_of_a_load_is_left_when_the_process_dies_inside_it(
    project: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.warehouse import registry

    path = segment(project.root)

    def die(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(registry, "add_gpus", die)
        with pytest.raises(KeyboardInterrupt):
            ingest_gpu(project, [path])
    assert ask(project, "SELECT count(*) FROM gpu_reading") == [(0,)]
    assert ask(project, "SELECT count(*) FROM segment") == [(0,)]
    assert ingest_gpu(project, [path])[0].verdict == "loaded"


def _has_tables(store: Store) -> bool:
    """Whether a process had made them before it was killed."""
    if not store.exists():
        return False
    con = store.connect(read_only=True)
    try:
        return bool(con.execute("FROM duckdb_tables() WHERE table_name = 'gpu_reading'").fetchall())
    finally:
        con.close()


@pytest.mark.parametrize("after_s", [0.05, 0.3, 0.6, 0.9, 1.2])
def test_a_kill_while_loading_loses_and_doubles_nothing(
    after_s: float, project: Settings, tmp_path: Path, kill_while: Callable[..., None]
) -> None:
    paths = [segment(tmp_path, f"node{n:02d}", seconds=6000, gpus=4) for n in range(6)]
    kill_while(preloaded.load_gpu_files, project.root, paths, after_s=after_s)
    # Each file is in whole or not at all, with its catalogue row.
    if _has_tables(store_of(project)):
        counts = ask(
            project,
            "SELECT segment_key, count(*) FROM gpu_reading GROUP BY ALL "
            "EXCEPT SELECT segment_key, rows_loaded FROM segment",
        )
        assert counts == []
    ingest_gpu(project, paths)
    assert ask(project, "SELECT count(*), count(DISTINCT (gpu_key, ts)) FROM gpu_reading") == [
        (144_000, 144_000)
    ]
    assert ask(project, "SELECT count(*) FROM segment WHERE verdict = 'loaded'") == [(6,)]


def test_the_catalogue_says_what_was_read(project: Settings) -> None:
    ingest_gpu(project, [segment(project.root)])
    con = duckdb.connect(str(store_of(project)), read_only=True)
    [row] = query_rows(con, "FROM segment")
    con.close()
    assert (row["rows_read"], row["rows_loaded"], row["sample_period_ms"]) == (3600, 3600, 1000)
    assert row["verdict"] == "loaded"


_A75 = """<?xml version="1.0" encoding="UTF-8"?>
<GL_MarketDocument xmlns="urn:iec62325.351:tc57wg16:451-6:generationloaddocument:3:0">
{series}</GL_MarketDocument>
"""
_SERIES = """<TimeSeries><{way}BiddingZone_Domain.mRID>10YXX</{way}BiddingZone_Domain.mRID>
<quantity_Measure_Unit.name>MAW</quantity_Measure_Unit.name><curveType>{curve}</curveType>
<MktPSRType><psrType>{kind}</psrType></MktPSRType><Period><timeInterval>
<start>2024-05-01T12:00Z</start><end>2024-05-01T14:00Z</end></timeInterval>
<resolution>PT30M</resolution>{points}</Period></TimeSeries>
"""


def a75(way: str, curve: str, kind: str, points: dict[int, float]) -> str:
    inner = "".join(
        f"<Point><position>{n}</position><quantity>{v}</quantity></Point>"
        for n, v in points.items()
    )
    return _SERIES.format(way=way, curve=curve, kind=kind, points=inner)


def test_entsoe_answers_carry_forward_or_leave_gaps_as_their_curve_says(project: Settings) -> None:
    path = project.root / "a.xml"
    path.write_text(
        _A75.format(
            series=a75("in", "A03", "B16", {1: 5, 3: 7})
            + a75("in", "A01", "B14", {1: 9, 4: 8})
            + a75("in", "A03", "B10", {1: 3})
            + a75("out", "A03", "B10", {1: 4.5})
        )
    )
    (outcome,) = ingest_grid(project, [path], layouts.Options(zone="XX"))
    assert outcome.verdict == "loaded", outcome.reason
    found = dict(
        ask(
            project,
            "SELECT fuel, list(generation_kw ORDER BY valid_from) FROM grid_mix GROUP BY fuel",
        )  # type: ignore[arg-type]
    )
    assert found == {
        "solar": [5000, 5000, 7000, 7000],
        "nuclear": [9000, 8000],
        "storage": [-1500] * 4,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<html>busy</html>", "a html, not generation"),
        ("<a><b></a>", "not XML"),
        (_A75.format(series=""), "it holds no values"),
        (
            _A75.format(series=a75("in", "A03", "Z99", {1: 1})),
            "column 'psrType', value 'Z99': unknown production type 'Z99'",
        ),
    ],
)
def test_bad_entsoe_answers(text: str, message: str, project: Settings) -> None:
    path = project.root / "a.xml"
    path.write_text(text)
    (outcome,) = ingest_grid(project, [path], layouts.Options(zone="XX"))
    assert outcome.verdict == "quarantined"
    assert message in outcome.reason
