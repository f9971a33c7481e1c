"""wattledger.toml: the settings of a project folder, checked when they are read."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flows.errors import SettingsError
from transforms.schemas import SIGNALS

FILE_NAME = "wattledger.toml"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Quantity(_Strict):
    """A value with its bounds; a bare number in the file means low = value = high."""

    value: float
    low: float
    high: float
    source: str = ""

    @model_validator(mode="before")
    @classmethod
    def _bare_number(cls, given: Any) -> Any:
        if isinstance(given, int | float):
            return {"value": given, "low": given, "high": given}
        if isinstance(given, dict) and "value" in given:
            return {"low": given["value"], "high": given["value"], **given}
        return given

    @model_validator(mode="after")
    def _ordered(self) -> Quantity:
        if not 0 <= self.low <= self.value <= self.high:
            raise ValueError(
                f"needs 0 <= low <= value <= high, got {self.low}, {self.value}, {self.high}"
            )
        return self


class Site(_Strict):
    """A data centre: its grid zone, PUE, WUE and host overhead, optionally for a period."""

    name: str
    zone: str
    hosts: list[str] = ["*"]
    pue: Quantity
    wue_l_per_kwh: Quantity
    host_overhead_w_per_gpu: Quantity = Quantity(value=0, low=0, high=0)
    """Everything of the host but its GPUs, where the collector did not meter the host."""
    host_rest_w_per_gpu: Quantity = Quantity(value=0, low=0, high=0)
    """What is neither GPU, CPU nor memory (network, fans, conversion), where it did."""
    valid_from: datetime | None = None
    valid_to: datetime | None = None

    @model_validator(mode="after")
    def _physical(self) -> Site:
        if self.pue.low < 1:
            raise ValueError(f"PUE is at least 1, got {self.pue.low}")
        for name in ("valid_from", "valid_to"):
            moment = getattr(self, name)
            if moment is not None and moment.tzinfo is None:
                setattr(self, name, moment.replace(tzinfo=UTC))
        return self


class Zone(_Strict):
    """How a zone's intensity is chosen, and what stands in where no series covers a slot."""

    signal: str = "average_lifecycle"
    fallback_intensity_g_per_kwh: Quantity | None = None
    ewif_l_per_kwh: Quantity | None = None

    @model_validator(mode="after")
    def _known_signal(self) -> Zone:
        if self.signal not in SIGNALS:
            raise ValueError(f"signal must be one of {', '.join(SIGNALS)}")
        return self


class Gpu(_Strict):
    """GPUs of a host that are known without readings, or a model for GPUs whose log names none."""

    host: str
    indices: list[int] = []
    uuids: list[str] = []
    model: str | None = None


class Column(_Strict):
    """Where a quantity stands in a file, and in which unit."""

    column: str
    unit: str = ""


class GpuSource(_Strict):
    """How to read one kind of GPU log that is neither ours nor nvidia-smi's."""

    columns: list[str] = []
    """Names by position, for files without a header line."""
    ts: Column
    ts_format: str = ""
    tz: str = ""
    power: Column | None = None
    power_by_gpu: dict[str, str] = {}
    """Wide files: GPU index -> column of its power; the unit is `power_unit`."""
    power_unit: Literal["W", "mW", "kW"] = "W"
    energy: Column | None = None
    util: Column | None = None
    memory: Column | None = None
    temperature: Column | None = None
    sm_clock: Column | None = None
    gpu: str = ""
    """Column with UUID or index; without one, the file is about one GPU (index 0)."""
    host: str = ""
    model: str = ""
    unsorted: bool = False


class GridSource(_Strict):
    """How to read one kind of grid series that has no layout of its own."""

    ts: Column
    intensity: Column
    zone: str
    signal: str = "average_lifecycle"
    tz: str = ""
    estimated: str = ""
    source: str = ""


class Readings(_Strict):
    """What a believable reading is, and how gaps are treated."""

    max_gap_s: Annotated[float, Field(gt=0)] = 30
    max_bridge_s: Annotated[float, Field(gt=0)] = 3600
    max_power_w: Annotated[float, Field(gt=0)] = 3000
    limit_tolerance: Annotated[float, Field(ge=1)] = 1.6
    future_tolerance_s: Annotated[float, Field(ge=0)] = 300


class Gate(_Strict):
    """Thresholds of the checks that guard publication."""

    min_carbon_coverage: Annotated[float, Field(ge=0, le=1)] = 1.0
    max_filled_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    max_intensity_g_per_kwh: Annotated[float, Field(gt=0)] = 3000
    max_run_days: Annotated[float, Field(gt=0)] = 400
    second_meter_tolerance: Annotated[float, Field(gt=0)] = 0.1


class GpuInput(_Strict):
    """Files of readings that the pipeline looks for."""

    paths: list[str]
    source: str = ""
    host: str = ""
    tz: str = ""
    model: str = ""
    gpus_per_sweep: int = 0


class GridInput(_Strict):
    """Files of grid data that the pipeline looks for."""

    paths: list[str]
    source: str = ""
    layout: str = "auto"
    zone: str = ""
    signal: str = ""
    unit: str = ""
    tz: str = ""
    provider: str = ""


class RunsInput(_Strict):
    """Run tables that the pipeline looks for."""

    paths: list[str]
    tz: str = ""


class PrometheusInput(_Strict):
    """A Prometheus that scrapes DCGM exporters; the pipeline fetches what is new."""

    name: str = "prometheus"
    """Names its folder under `fetched/`."""
    url: str
    selector: str = ""
    """Label matchers, for example {cluster="a"}."""
    step_s: Annotated[float, Field(ge=1)] = 15
    """No longer than its scrape interval, or samples are left out."""
    lookback_h: Annotated[float, Field(gt=0)] = 24
    """How far back the first fetch goes."""
    run_label: str = "pod"
    """Label of the series that names the run."""
    token_env: str = ""
    """Environment variable that holds a bearer token."""

    @model_validator(mode="after")
    def _plain_name(self) -> PrometheusInput:
        if not self.name.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"name needs letters, digits, - and _, got {self.name!r}")
        return self


class Inputs(_Strict):
    """Where the pipeline looks for data, relative to the project folder."""

    prometheus: list[PrometheusInput] = []
    gpu: list[GpuInput] = []
    grid: list[GridInput] = []
    runs: list[RunsInput] = []


class Project(_Strict):
    """What the project is called; the title heads its report."""

    name: str = "wattledger"
    title: str = ""


class Settings(_Strict):
    """The whole of wattledger.toml."""

    project: Project = Project()
    readings: Readings = Readings()
    gate: Gate = Gate()
    input: Inputs = Inputs()
    site: list[Site] = []
    gpu: list[Gpu] = []
    zones: dict[str, Zone] = {}
    factors: dict[str, dict[str, Quantity]] = {}
    sources: dict[str, GpuSource] = {}
    grid_sources: dict[str, GridSource] = {}
    root: Path = Field(default=Path(), exclude=True)

    @property
    def warehouse(self) -> Path:
        return self.root / "warehouse.duckdb"

    @property
    def work(self) -> Path:
        """Scratch, locks and Prefect's home."""
        return self.root / ".wattledger"

    @property
    def quarantine(self) -> Path:
        return self.root / "quarantine"

    @property
    def publications(self) -> Path:
        return self.root / "publications"

    @property
    def published(self) -> Path:
        """Link to the publication in force."""
        return self.root / "published"

    def site_of(self, host: str) -> str | None:
        """The first site one of whose host patterns fits."""
        for site in self.site:
            if any(fnmatchcase(host, pattern) for pattern in site.hosts):
                return site.name
        return None


def load(root: Path) -> Settings:
    """Read `root/wattledger.toml`.

    Raises:
        SettingsError: no such file, not TOML, or a setting that makes no sense (named).
    """
    path = root / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SettingsError(
            f"no {FILE_NAME} in {root.resolve()}",
            remedy="Run `wattledger init` here, or name the project folder with --project",
        ) from None
    try:
        settings = Settings.model_validate(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"not valid TOML: {error}", where=str(path)) from None
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"])
        raise SettingsError(
            f"{first['msg']} (got {first['input']!r:.80})",
            where=f"{path}, setting {at}",
            remedy="See docs/settings.md for every setting",
        ) from None
    settings.root = root
    return settings
