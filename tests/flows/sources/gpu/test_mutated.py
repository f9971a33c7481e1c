"""Every reader of readings on mutated inputs: each row is traced, nothing but a verdict comes out, good rows stay."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.errors import BadInput
from flows.ingest.gpu import ingest_gpu
from flows.settings import GpuSource, Ingest, Settings
from flows.sources.gpu import reader
from flows.sources.gpu.nvidia_smi import Options
from flows.sources.gpu.staged import Staged
from flows.sources.verdict import judge_file
from flows.warehouse.registry import Outcome
from tests.conftest import ask
from tests.flows.ingest.test_gpu_values import write
from tests.flows.sources.gpu.test_layouts import document

ROWS = 60
START = datetime(2025, 7, 26, 10, tzinfo=UTC)


def _moments() -> list[datetime]:
    return [START + timedelta(seconds=s) for s in range(ROWS)]


def make_csv() -> list[str]:
    header = "timestamp, index, uuid, name, power.draw [W], utilization.gpu [%], memory.used [MiB]"
    rows = [
        f"{t:%Y/%m/%d %H:%M:%S}.000, 0, GPU-a, NVIDIA H100 80GB HBM3, {300 + n}.50 W, 90 %, {n} MiB"
        for n, t in enumerate(_moments())
    ]
    return [header, *rows]


def make_dmon() -> list[str]:
    headers = ["#Date Time gpu pwr gtemp sm", "#YYYYMMDD HH:MM:SS Idx W C %"]
    rows = [f" {t:%Y%m%d %H:%M:%S} 0 {300 + n} 61 97" for n, t in enumerate(_moments())]
    return headers + rows


def make_mapped() -> list[str]:
    rows = [f"{t.timestamp():.0f};{300 + n},5;{n * 300}" for n, t in enumerate(_moments())]
    return ["t;p;e", *rows]


def make_xml() -> list[str]:
    return "".join(document(second, f"{300 + second} W") for second in range(ROWS)).splitlines()


FORMATS: dict[str, tuple[Callable[[], list[str]], int, str]] = {
    # Lines of a sound file, lines of its header, [sources] that it needs.
    "csv": (make_csv, 1, ""),
    "dmon": (make_dmon, 2, ""),
    "mapped": (make_mapped, 1, "lab"),
    "xml": (make_xml, 0, ""),
}
LAB = {
    "ts": {"column": "t", "unit": "s"},
    "power": {"column": "p"},
    "energy": {"column": "e", "unit": "J"},
    "host": "n1",
}
JUNK = [
    "", "-", "[GPU requires reset]", "nan", "inf", "-1", "1e400", "0x1F", "9223372036854775807", "4294967295",
    "\0\0", "\ufffd", "<", "&", "2525/01/01 00:00:00", "1970-01-01", "12:00", "'", '"', ",", ";", "\t", "[" * 500,
    "Failed to initialize NVML: Unknown Error", "ü", "1" * 5000, "=1+1", "999999 W", "-5 W", "0", "#",
]  # fmt: skip


def mutate(lines: list[str], seed: int) -> list[str]:
    """Lines with a few of the faults that logs have."""
    chance = random.Random(seed)
    result = list(lines)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(result))
        line, junk = result[at], chance.choice(JUNK)
        cut = chance.randint(0, len(line))
        words = line.split(" ")
        words[chance.randrange(len(words))] = junk
        result[at] = chance.choice(
            [
                line[:cut],
                line[:cut] + junk + line[cut:],
                junk,
                " ".join(words),
                line + line,
                line.replace(" ", "", 1),
                line.swapcase(),
            ]
        )
        action = chance.randrange(5)
        if action == 0:
            result.insert(at, line)
        elif action == 1:
            result.insert(at, junk)
        elif action == 2:
            other = chance.randrange(len(result))
            result[at], result[other] = result[other], result[at]
        elif action == 3 and len(result) > 3:
            del result[at]
    return result


def make_project(folder: Path) -> Settings:
    # A third may be bad, so that files with some bad rows go on to be traced.
    project = Settings(
        sources={"lab": GpuSource.model_validate(LAB)}, ingest=Ingest(max_bad_rows_share=0.3)
    )
    project.root = folder
    folder.mkdir()
    return project


def trace(project: Settings, path: Path, source: str) -> Outcome:
    """Ingest a file and account for each of its rows."""
    [outcome] = ingest_gpu(project, [path], Options(host="n1", tz="UTC"), source)
    assert outcome.verdict in ("loaded", "quarantined", "known")
    if outcome.verdict == "quarantined":
        assert path.name in outcome.reason
        assert "cannot be read:" not in outcome.reason, outcome.reason
        return outcome
    rows = (
        outcome.rows_loaded
        + outcome.rows_duplicate
        + outcome.rows_skipped
        + outcome.rows_quarantined
    )
    assert outcome.rows_read == rows
    assert outcome.rows_skipped == sum(outcome.skipped.values())
    return outcome


MUTATED = 100
"""Files of each layout that only the reader sees; of these, the first `INGESTED` go all the way."""
INGESTED = 3


@pytest.mark.parametrize("name", FORMATS)
def test_mutated_texts_are_read_row_by_row_or_refused(name: str, tmp_path: Path) -> None:
    make, headers, source = FORMATS[name]
    lines, project = make(), make_project(tmp_path / "p")
    good = _stage(project, tmp_path / "sound.csv", lines, source)
    known = _list_powers(good)
    assert len(known) == ROWS
    traced = read = 0
    refused: list[str] = []
    for seed in range(MUTATED):
        text = [*lines[:headers], *mutate(lines[headers:], seed)]
        path = tmp_path / f"{seed}.csv"
        try:
            staged = _stage(project, path, text, source)
        except BadInput as error:
            refused.append(str(error))
            continue
        read += 1
        traced += staged.rows_read
        if name != "xml":
            # Each line that is not blank is a reading, a header, a message, or set aside.
            rows = [line for line in "\n".join(text).split("\n") if line.strip(" \t\r")]
            units = sum(line.startswith("#") for line in rows) if name == "dmon" else 1
            assert staged.rows_read == len(rows) - units
        # A mutation touches at most two lines, and there are at most three; a document has several.
        assert len(known & _list_powers(staged)) >= ROWS - 3 * (2 if name != "xml" else 4)
        assert len(_list_powers(staged)) <= ROWS + 3
    assert all(".csv" in reason and "cannot be read:" not in reason for reason in refused)
    assert read > MUTATED / 2
    assert traced > read * (ROWS - 12)


def _stage(project: Settings, path: Path, lines: list[str], source: str) -> Staged:
    path.write_text("\n".join(lines) + "\n")
    with judge_file(path):
        return reader.stage(path, project, Options(host="n1", tz="UTC"), source)


def _list_powers(staged: Staged) -> set[tuple[int, int]]:
    readings = pl.read_parquet(staged.path).drop_nulls("power_mw")
    return set(readings.select(pl.col("ts").to_physical(), "power_mw").iter_rows())


@pytest.mark.parametrize("name", FORMATS)
def test_mutated_texts_are_loaded_row_by_row_or_refused(name: str, tmp_path: Path) -> None:
    make, headers, source = FORMATS[name]
    lines = make()
    for seed in range(INGESTED):
        path = tmp_path / f"{seed}.csv"
        path.write_text("\n".join([*lines[:headers], *mutate(lines[headers:], seed)]) + "\n")
        trace(make_project(tmp_path / str(seed)), path, source)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(place=st.floats(0, 1), junk=st.binary(max_size=40), cut=st.booleans())
def test_damaged_segments_are_loaded_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: float, junk: bytes, cut: bool
) -> None:
    folder = tmp_path_factory.mktemp("segment")
    path = write(folder / "s.parquet", seconds=ROWS)
    content = path.read_bytes()
    at = int(place * len(content))
    path.write_bytes(content[:at] + junk + (b"" if cut else content[at + len(junk) :]))
    project = make_project(folder / "p")
    [outcome] = ingest_gpu(project, [path])
    assert outcome.verdict in ("loaded", "quarantined")
    if outcome.verdict == "loaded":
        rows = outcome.rows_loaded + outcome.rows_duplicate + outcome.rows_quarantined
        assert outcome.rows_read == rows == ROWS
    else:
        assert "s.parquet" in outcome.reason


READINGS = st.fixed_dictionaries(
    {
        "power_mw": st.none() | st.integers(-(1 << 31), (1 << 31) - 1) | st.integers(0, 700_000),
        "energy_mj": st.none() | st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(0, 10**9),
        "util_pct": st.none() | st.integers(-5, 120),
    }
)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(bad=st.lists(st.tuples(st.integers(0, ROWS - 1), READINGS), max_size=4))
def test_segments_with_any_values_are_traced(
    tmp_path_factory: pytest.TempPathFactory, bad: list[tuple[int, dict[str, int | None]]]
) -> None:
    folder = tmp_path_factory.mktemp("values")
    path = write(folder / "s.parquet", seconds=ROWS)
    frame = pl.read_parquet(path)
    for row, values in bad:
        for name, value in values.items():
            column = frame[name].to_list()
            column[row] = value
            frame = frame.with_columns(pl.Series(name, column, frame.schema[name]))
    frame.write_parquet(path)
    project = make_project(folder / "p")
    [outcome] = ingest_gpu(project, [path])
    if outcome.verdict == "loaded":
        assert outcome.rows_read == ROWS == outcome.rows_loaded + outcome.rows_quarantined
        touched = {row for row, _ in bad}
        [stored] = ask(
            project,
            "SELECT count(*) AS n FROM gpu_reading WHERE power_mw = 400000 AND energy_mj > 0",
        )
        assert stored["n"] >= ROWS - len(touched) - 2
        [limits] = ask(
            project, "SELECT max(power_mw) AS high, min(power_mw) AS low FROM gpu_reading"
        )
        assert 0 <= limits["low"] <= limits["high"] <= 1_120_000
    else:
        assert "s.parquet" in outcome.reason
