"""Values that stand for missing ones, limits of boards, GPUs that are told twice: through the whole of ingest."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.accounting.compute import compute
from flows.factors import find_for_model, is_of_board, list_shipped_factors
from flows.ingest.gpu import ingest_gpu
from flows.ingest.runs import ingest_runs
from flows.settings import Settings
from flows.sources.gpu import segments
from flows.sources.gpu.nvidia_smi import Options
from flows.warehouse.registry import Outcome
from tests.conftest import T0, ask, make_project, runs_csv

UTC = Options(host="n1", tz="UTC")
NO_GRID = "[zones.XX]\nfallback_intensity_g_per_kwh = 1\n"


def write(path: Path, seconds: int = 300, **columns: Any) -> Path:
    """A segment of one GPU at 1 Hz: 400 W, its counter, 90 %; columns are values or functions of the second."""
    given = {
        "power_mw": 400_000,
        "energy_mj": lambda s: 5_000_000 + 400_000 * s,
        "util_pct": 90,
        "gpu_uuid": "GPU-a",
        "host": "n1",
        "gpu_index": 0,
        "model": "NVIDIA H100 80GB HBM3",
        "power_source": "instant",
    } | columns
    frame = pl.DataFrame(
        {
            "ts": [T0 + timedelta(seconds=s) for s in range(seconds)],
            **{
                name: [value(s) if callable(value) else value for s in range(seconds)]
                for name, value in given.items()
            },
        }
    )
    types = {name: segments.COLUMNS[name] for name in frame.columns}
    segments.write(frame.cast(types), path)  # type: ignore[arg-type]
    return path


def load(project: Settings, **columns: Any) -> Outcome:
    [outcome] = ingest_gpu(project, [write(project.root / "s.parquet", **columns)])
    assert outcome.verdict == "loaded", outcome.reason
    assert outcome.rows_read == outcome.rows_loaded + outcome.rows_quarantined
    return outcome


def measure(project: Settings) -> tuple[float, float]:
    """Energy by counter and by power, in kJ."""
    compute(project)
    query = "SELECT sum(counter_mj) AS c, sum(power_integral_mj) AS p FROM gpu_slot"
    [row] = ask(project, query)
    return row["c"] / 1e6, row["p"] / 1e6


@pytest.fixture
def project(tmp_path: Path) -> Settings:
    return make_project(tmp_path / "project", NO_GRID)


WHOLE = 400 * 299 / 1000
"""What the GPU of `write` draws, in kJ."""
BLANKED: dict[str, tuple[dict[str, Any], float, int]] = {
    # What is wrong -> (columns, kJ that are right, values that are unknown)
    "a counter at 0": ({"energy_mj": 0}, WHOLE, 300),
    "a counter that never moves": ({"energy_mj": 7_000_000}, WHOLE, 300),
    "a counter that stops": (
        {"energy_mj": lambda s: 5_000_000 + 400_000 * min(s, 100)},
        WHOLE,
        199,
    ),
    "a counter at 2^63-1": ({"energy_mj": (1 << 63) - 1}, WHOLE, 300),
    "a counter that ends at DCGM's blank": (
        {"energy_mj": lambda s: 5_000_000 + 400_000 * s if s < 299 else (1 << 63) - 14},
        WHOLE,
        1,
    ),
    "a counter of -1": ({"energy_mj": lambda s: -1 if s == 50 else 400_000 * s}, WHOLE, 1),
    "a counter that spikes": (
        {"energy_mj": lambda s: 9_000_000_000 if s == 50 else 400_000 * s + 1},
        WHOLE,
        1,
    ),
    "a counter that dips": (
        {"energy_mj": lambda s: 3 if s == 50 else 5_000_000 + 400_000 * s},
        WHOLE,
        1,
    ),
    "power at 0 while busy": ({"power_mw": 0}, WHOLE, 300),
    "power at 0 for a while": (
        {"power_mw": lambda s: 0 if s % 7 == 3 else 400_000, "energy_mj": None},
        WHOLE,
        43,
    ),
    "power of -1": (
        {"power_mw": lambda s: -1 if s % 2 else 400_000, "energy_mj": None},
        WHOLE,
        150,
    ),
    "power at 2^31-1": (
        {"power_mw": lambda s: (1 << 31) - 1 if s % 2 else 400_000, "energy_mj": None},
        WHOLE,
        150,
    ),
    "power at DCGM's blank": (
        {"power_mw": lambda s: 2_147_483_634 if s % 5 == 1 else 400_000, "energy_mj": None},
        WHOLE,
        60,
    ),
}


@pytest.mark.parametrize("case", BLANKED)
def test_what_stands_for_a_missing_value_is_unknown_and_never_energy(
    case: str, project: Settings
) -> None:
    columns, right_kj, blanks = BLANKED[case]
    outcome = load(project, **columns)
    assert sum(measure(project)) == pytest.approx(right_kj, rel=0.005)
    assert ask(project, "SELECT blank_values FROM segment_profile") == [{"blank_values": blanks}]
    assert any("stands for a missing one" in warning for warning in outcome.warnings)
    assert f"{blanks} values stand for missing ones" in outcome.understood[0]


def test_sound_readings_are_left_as_they_are(project: Settings) -> None:
    load(project, power_mw=lambda s: 0 if s < 100 else 400_000, util_pct=lambda s: 90 * (s > 100),
         energy_mj=None)  # fmt: skip
    readings = ask(project, "SELECT count(*) AS n, min(power_mw) AS low FROM gpu_reading")
    assert readings == [{"n": 300, "low": 0}]
    assert ask(project, "SELECT blank_values FROM segment_profile") == [{"blank_values": 0}]


def test_a_counter_that_was_reset_is_no_blank(project: Settings) -> None:
    load(project, energy_mj=lambda s: 400_000 * (s if s > 150 else s + 10_000))
    assert ask(project, "SELECT blank_values, counter_resets FROM segment_profile") == [
        {"blank_values": 0, "counter_resets": 1}
    ]
    counter, power = measure(project)
    assert counter + power == pytest.approx(WHOLE)


def test_a_gpu_without_any_value_keeps_no_other_out(project: Settings) -> None:
    good = pl.read_parquet(write(project.root / "good.parquet"))
    silent = good.with_columns(
        gpu_uuid=pl.lit("GPU-b"),
        gpu_index=pl.lit(1, pl.Int32),
        power_mw=pl.lit(None, pl.Int32),
        energy_mj=pl.lit(None, pl.Int64),
    )
    segments.write(pl.concat([good, silent]), project.root / "both.parquet")
    segments.write(silent, project.root / "silent.parquet")
    both, nothing = ingest_gpu(
        project, [project.root / "both.parquet", project.root / "silent.parquet"]
    )
    assert both.verdict == "loaded"
    assert any("Every GPU has at least one reading" in w and "GPU-b" in w for w in both.warnings)
    assert nothing.verdict == "known" or "has power or energy" in nothing.reason


def test_the_limit_of_the_log_counts_before_the_boards(project: Settings) -> None:
    header = "timestamp, index, uuid, name, power.draw [W], power.limit [W]"
    lines = [
        f"2024/05/01 12:{s // 60:02d}:{s % 60:02d}, 0, GPU-a, NVIDIA A10G, 278.00 W, 290.00 W"
        for s in range(120)
    ]
    # A hole of half an hour, which the run holds through.
    lines += [line.replace(" 12:", " 13:") for line in lines]
    path = project.root / "a10g.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    [outcome] = ingest_gpu(project, [path], UTC)
    assert outcome.verdict == "loaded", outcome.reason
    assert "power limit 290 W, as the readings say" in outcome.understood[0]
    assert ask(project, "SELECT limit_from, limit_mw FROM segment_profile") == [
        {"limit_from": "readings", "limit_mw": 464_000}
    ]
    row = "r,2024-05-01T12:00:00Z,2024-05-01T13:01:59Z,n1,GPU-a,1"
    ingest_runs(project, [runs_csv(project.root, [row])])
    compute(project)
    [run] = ask(project, "SELECT energy_kwh, energy_high_kwh FROM run_summary")
    gap_h = (3600 - 119) / 3600
    assert run["energy_high_kwh"] <= 0.290 * gap_h + 0.278 * 0.07 * 1.2
    uses = ask(project, "SELECT factor FROM factor_use WHERE factor = 'gpu_limit_w'")
    assert uses == []


BOARDS = {
    "NVIDIA A10": ("A10", 150),
    "NVIDIA A10G": ("A10G", 300),
    "NVIDIA A40": ("A40", 300),
    "NVIDIA RTX A4000": ("RTX A4000", 140),
    "Tesla T4": ("T4", 70),
    "NVIDIA T400 4GB": ("T400 4GB", 30),
    "NVIDIA L4": ("L4", 72),
    "NVIDIA L40S": ("L40S", 350),
    "NVIDIA H100 80GB HBM3": ("H100 80GB HBM3", 700),
    "NVIDIA H100 PCIe": ("H100 PCIe", 350),
    "NVIDIA H100 NVL": ("H100 NVL", 400),
    "NVIDIA A100-SXM4-80GB": ("A100-SXM4-80GB", 400),
    "NVIDIA A100-SXM4-40GB MIG 1g.5gb": ("A100-SXM4-40GB", 400),
    "A100-PCIE-40GB": ("A100-PCIE-40GB", 250),
    "NVIDIA A100 80GB PCIe": ("A100 80GB PCIe", 300),
    "HGX H100": ("H100 80GB HBM3", 700),
    "NVIDIA GeForce RTX 3090 Ti": ("GeForce RTX 3090 Ti", 450),
}


@pytest.mark.parametrize("model", BOARDS)
def test_a_board_is_told_by_its_exact_name(model: str) -> None:
    factor = find_for_model(list_shipped_factors(), "gpu_limit_w", model)
    assert (factor.scope, factor.high) == BOARDS[model]
    assert is_of_board(factor)


@pytest.mark.parametrize(
    ("model", "scope", "low", "high"),
    [
        ("H100", "H100 *", 350, 700),
        ("NVIDIA A100 something new", "A100 *", 250, 500),
        ("NVIDIA A100X", "default", 30, 1400),
        ("NVIDIA A10M", "default", 30, 1400),
        ("NVIDIA T1234", "default", 30, 1400),
        (None, "default", 30, 1400),
    ],
)
def test_a_board_that_is_not_known_has_the_range_of_its_class(
    model: str | None, scope: str, low: float, high: float
) -> None:
    factor = find_for_model(list_shipped_factors(), "gpu_limit_w", model)
    assert (factor.scope, factor.low, factor.high) == (scope, low, high)
    assert not is_of_board(factor)


def test_the_gate_warns_of_a_board_that_is_not_known(project: Settings) -> None:
    outcome = load(project, model="NVIDIA A100X")
    assert any("power limit of the GPU is told" in warning for warning in outcome.warnings)
    assert ask(project, "SELECT limit_from FROM segment_profile") == [{"limit_from": "default"}]


def test_a_gpu_that_two_recorders_tell_of_is_refused_by_name(project: Settings) -> None:
    write(project.root / "collector.parquet", host="n1.cluster.example")
    header = "timestamp, index, power.draw [W]"
    rows = [f"2024/05/01 12:00:{s:02d}.500, {{}}, 400 W" for s in range(60)]
    for index in (0, 1):
        text = "\n".join([header, *(row.format(index) for row in rows)]) + "\n"
        (project.root / f"gpu{index}.csv").write_text(text)
    names = ["collector.parquet", "gpu0.csv", "gpu1.csv"]
    loaded, twice, other = ingest_gpu(project, [project.root / name for name in names], UTC)
    assert (loaded.verdict, other.verdict) == ("loaded", "loaded")
    assert twice.verdict == "quarantined"
    assert "n1/gpu0 is the same GPU as GPU-a" in twice.reason
    # Also when the other one is stored already.
    [again] = ingest_gpu(project, [project.root / "gpu0.csv"], UTC)
    assert "is the same GPU as GPU-a" in again.reason


def test_two_recorders_of_one_uuid_count_once(project: Settings) -> None:
    load(project)
    half = pl.read_parquet(project.root / "s.parquet").with_columns(
        ts=pl.col("ts") + timedelta(milliseconds=500), energy_mj=pl.col("energy_mj") + 200_000
    )
    segments.write(half, project.root / "dcgm.parquet")
    [outcome] = ingest_gpu(project, [project.root / "dcgm.parquet"])
    assert outcome.verdict == "loaded"
    assert sum(measure(project)) == pytest.approx(WHOLE, rel=0.005)


@pytest.mark.parametrize("name", ["gpu_uuid", "ts"])
def test_a_reading_without_name_or_time_is_set_aside(name: str, project: Settings) -> None:
    path = write(project.root / "s.parquet")
    frame = pl.read_parquet(path)
    lost = pl.when(pl.int_range(pl.len()) != 30).then(name)
    segments.write(frame.with_columns(lost.alias(name)), path)
    [outcome] = ingest_gpu(project, [path])
    assert outcome.verdict == "loaded", outcome.reason
    assert (outcome.rows_read, outcome.rows_loaded, outcome.rows_quarantined) == (300, 299, 1)
    [row] = ask(project, "SELECT row_no, field_name FROM quarantined_row")
    assert (row["row_no"], row["field_name"]) == (31, name)
