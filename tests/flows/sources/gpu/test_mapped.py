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
    path = file(tmp_path, "t,GPU0,GPU1\n1,10,20\n2,11,21\n")
    readings = read(
        path, {"ts": {"column": "t", "unit": "s"}, "power_by_gpu": {"0": "GPU0", "1": "GPU1"}}
    )
    assert readings["gpu_uuid"].to_list() == ["h/gpu0", "h/gpu0", "h/gpu1", "h/gpu1"]
    assert readings["power_mw"].to_list() == [10_000, 11_000, 20_000, 21_000]


def test_gpu_by_uuid_or_index(tmp_path: Path) -> None:
    path = file(tmp_path, "t,p,g\n1,10,GPU-abc\n1,20,3\n")
    assert read(path, {**SIMPLE, "gpu": "g"})["gpu_uuid"].to_list() == ["GPU-abc", "h/gpu3"]


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"t": [1.0, 2.0], "p": [5.5, 6.5]}).write_parquet(path)
    assert read(path, SIMPLE)["power_mw"].to_list() == [5500, 6500]
    pl.DataFrame({"t": [1.0], "p": [float("nan")]}).write_parquet(path)
    with pytest.raises(BadInput, match=r"row 1, column 'p', value 'NaN'"):
        read(path, SIMPLE)
    path.write_bytes(b"PAR1 and then nothing of use")
    with pytest.raises(BadInput, match="not a Parquet file"):
        read(path, SIMPLE)


def test_mistakes_are_named(tmp_path: Path) -> None:
    path = file(tmp_path, "t,p\n1,10\n")
    with pytest.raises(BadInput, match=r"no column 'watts'. It has t, p"):
        read(path, {"ts": {"column": "t", "unit": "s"}, "power": {"column": "watts"}})
    with pytest.raises(SettingsError, match="neither power nor energy"):
        read(path, {"ts": {"column": "t", "unit": "s"}})
    with pytest.raises(UsageError, match="--host"):
        read(path, SIMPLE, Options())
    with pytest.raises(BadInput, match="header but no reading"):
        read(file(tmp_path, "t,p\n"), SIMPLE)
    with pytest.raises(BadInput, match=r"row 3: 3 fields where 2"):
        read(file(tmp_path, "t,p\n1,10\n2,3,4\n3,4\n"), SIMPLE)
    project = Settings()
    with pytest.raises(UsageError, match="no source 'lab'"):
        reader.stage(path, project, Options(), "lab")
