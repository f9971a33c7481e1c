"""CPU and memory by codecarbon's meters."""

from __future__ import annotations

from pathlib import Path

from wattledger.meters.host import start_meters


def rapl(folder: Path, micro_joules: int) -> str:
    """A powercap tree as Linux has it, with one package."""
    domain = folder / "intel-rapl" / "intel-rapl:0"
    domain.mkdir(parents=True, exist_ok=True)
    (domain / "name").write_text("package-0\n")
    (domain / "energy_uj").write_text(f"{micro_joules}\n")
    (domain / "max_energy_range_uj").write_text("262143328850\n")
    return str(folder / "intel-rapl")


def test_codecarbon_reads_rapl_where_it_can(tmp_path: Path) -> None:
    cpu, memory = start_meters(rapl(tmp_path, 10_000_000))
    assert (cpu.method, cpu.is_modelled) == ("RAPL", False)
    rapl(tmp_path, 135_000_000)
    assert cpu.measure_mj(2.0) == 125_000
    assert memory.is_modelled
    assert memory.measure_mj(2.0) is not None


def test_without_rapl_it_models_and_says_so(tmp_path: Path) -> None:
    cpu, _ = start_meters(str(tmp_path / "nothing"))
    assert cpu.is_modelled
    assert "TDP" in cpu.method
