"""Logs of other tools, by the mapping in wattledger.toml."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from flows.errors import BadInput, SettingsError, UsageError
from flows.settings import GpuSource, Settings
from flows.sources.gpu import reader
from flows.sources.gpu.nvidia_smi import Options


def read(path: Path, mapping: dict[str, object], options: Options | None = None) -> pl.DataFrame:
    project = Settings(sources={"lab": GpuSource.model_validate(mapping)})
    project.root = path.parent
    return pl.read_parquet(reader.stage(path, project, options or Options(host="h"), "lab").path)


def file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "log.csv"
    path.write_text(text)
    return path


SIMPLE = {"ts": {"column": "t", "unit": "s"}, "power": {"column": "p", "unit": "W"}}


def test_units_of_time_power_and_energy(tmp_path: Path) -> None:
    path = file(tmp_path, "t,p,e\n1700000000.5,120.25,2\n")
    mapping = {**SIMPLE, "energy": {"column": "e", "unit": "J"}}
    row = read(path, mapping).row(0, named=True)
    assert (row["power_mw"], row["energy_mj"]) == (120_250, 2_000)
    assert row["ts"].timestamp() == 1700000000.5
    row = read(
        path, {"ts": {"column": "t", "unit": "s"}, "power": {"column": "p", "unit": "mW"}}
    ).row(0, named=True)
    assert row["power_mw"] == 120


def test_one_column_per_gpu(tmp_path: Path) -> None:
    path = file(tmp_path, "t,GPU0,GPU1\n1700000001,10,20\n1700000002,11,21\n")
    readings = read(
        path, {"ts": {"column": "t", "unit": "s"}, "power_by_gpu": {"0": "GPU0", "1": "GPU1"}}
    )
    assert readings["gpu_uuid"].to_list() == ["h/gpu0", "h/gpu0", "h/gpu1", "h/gpu1"]
    assert readings["power_mw"].to_list() == [10_000, 11_000, 20_000, 21_000]


def test_gpu_by_uuid_or_index(tmp_path: Path) -> None:
    path = file(tmp_path, "t,p,g\n1700000001,10,GPU-abc\n1700000001,20,3\n")
    assert read(path, {**SIMPLE, "gpu": "g"})["gpu_uuid"].to_list() == ["GPU-abc", "h/gpu3"]


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"t": [1.7e9, 1.7e9 + 1], "p": [5.5, 6.5]}).write_parquet(path)
    assert read(path, SIMPLE)["power_mw"].to_list() == [5500, 6500]
    pl.DataFrame({"t": [1.7e9], "p": ["12x"]}).write_parquet(path)
    with pytest.raises(BadInput, match=r"row 1, column 'p', value '12x'"):
        read(path, SIMPLE)
    pl.DataFrame({"p": [5.5, float("nan")], "t": [1.7e9, 1.7e9 + 1]}).write_parquet(path)
    assert read(path, SIMPLE)["power_mw"].to_list() == [5500, None]
    path.write_bytes(b"PAR1 and then nothing of use")
    with pytest.raises(BadInput, match="not a Parquet file"):
        read(path, SIMPLE)


def test_the_best_power_counts_row_by_row(tmp_path: Path) -> None:
    path = file(
        tmp_path, "t,i,p,l\n1700000001,,10,300\n1700000002,12,11,300\n1700000003,-1,13,300\n"
    )
    mapping = {
        **SIMPLE,
        "power": {"column": "i"},
        "power_else": [{"column": "p"}],
        "power_limit": {"column": "l"},
    }
    readings = read(path, mapping)
    assert readings["power_mw"].to_list() == [10_000, 12_000, 13_000]
    assert readings["power_limit_mw"].unique().to_list() == [300_000]


def test_a_value_in_another_unit_is_set_aside(tmp_path: Path) -> None:
    path = file(tmp_path, "t,p\n1700000001,10 W\n1700000002,11000 mW\n1700000003,12\n")
    assert read(path, SIMPLE)["power_mw"].to_list() == [10_000, 12_000]


@pytest.mark.parametrize(
    "text",
    [
        "T ;P\n1700000001;10,5\n1700000002;11,25\n",
        "t\tp\n1700000001\t10,5\n1700000002\t11,25\n",
        "p,t\n10.5,1700000001\n11.25,1700000002\n",
        "t,p\n1700000001,10.5\nt,p\n1700000002,11.25\n",
    ],
)
def test_separators_and_names_as_they_come(text: str, tmp_path: Path) -> None:
    assert read(file(tmp_path, text), SIMPLE)["power_mw"].to_list() == [10_500, 11_250]


INTERVALS = {
    "ts": {"column": "t", "unit": "s"},
    "energy": {"column": "e", "unit": "J"},
    "energy_kind": "interval",
}


def test_energies_of_intervals_count_up(tmp_path: Path) -> None:
    path = file(tmp_path, "t,e\n1700000000,7\n1700000010,100\n1700000020,200\n")
    assert read(path, INTERVALS)["energy_mj"].to_list() == [0, 100_000, 300_000]


@pytest.mark.parametrize("missing", ["", "-1", "nan", "9223372036854775794"])
def test_an_interval_that_is_not_there_is_never_zero(missing: str, tmp_path: Path) -> None:
    text = f"t,e\n1700000000,7\n1700000010,{missing}\n1700000020,200\n1700000030,300\n"
    energy = read(file(tmp_path, text), INTERVALS)["energy_mj"]
    steps = energy.diff().to_list()[1:]
    # The counter begins anew at the missing one, so that nothing is claimed for its interval.
    assert steps[0] < 0
    assert steps[1:] == [200_000, 300_000]


@pytest.mark.parametrize(
    "blank", ["-1", "4294967295", "4294967.295", "2147483647", "1.8446744073709552e19"]
)
def test_numbers_that_stand_for_missing_values_are_unknown(blank: str, tmp_path: Path) -> None:
    text = f"t,p,e\n1700000000,{blank},5\n1700000010,20,{blank}\n1700000020,20,7\n"
    mapping = {**SIMPLE, "energy": {"column": "e", "unit": "mJ"}}
    readings = read(file(tmp_path, text), mapping)
    assert readings["power_mw"].to_list() == [None, 20_000, 20_000]
    assert readings["energy_mj"].to_list() == [5, None, 7]


def test_mistakes_are_named(tmp_path: Path) -> None:
    path = file(tmp_path, "t,p\n1700000001,10\n")
    with pytest.raises(BadInput, match=r"no column 'watts'. It has t, p"):
        read(path, {"ts": {"column": "t", "unit": "s"}, "power": {"column": "watts"}})
    with pytest.raises(SettingsError, match="neither power nor energy"):
        read(path, {"ts": {"column": "t", "unit": "s"}})
    with pytest.raises(UsageError, match="--host"):
        read(path, SIMPLE, Options())
    with pytest.raises(BadInput, match="header but no reading"):
        read(file(tmp_path, "t,p\n"), SIMPLE)
    with pytest.raises(BadInput, match=r"row 3.*3 fields where the header has 2"):
        read(file(tmp_path, "t,p\n1700000001,10\n2,3,4\n2,3,4\n3,4\n"), SIMPLE)
    project = Settings()
    with pytest.raises(UsageError, match="no source 'lab'"):
        reader.check_options(project, Options(), "lab")
    with pytest.raises(UsageError, match="unknown time zone 'Mars'"):
        reader.check_options(project, Options(tz="Mars"), "")
