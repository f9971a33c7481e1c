"""wattledger.toml: the settings of a project folder, checked when they are read."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from flows.errors import SettingsError, UsageError
from transforms.constants import FILE_FEED, SERIES_TIERS, TIERS

FILE_NAME = "wattledger.toml"
PUBLISHED_DATABASE = "published.duckdb"
"""File with the figures, in the folder of each publication."""

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)


GATE_TABLES = frozenset({"project", "gate", "override", "retention"})
"""Tables that count when figures are published, not when they are computed."""


class Strict(BaseModel):
    """A table in which unknown names are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Quantity(Strict):
    """A value with its bounds; a bare number in the file means low = value = high."""

    value: float
    low: float
    high: float
    source: str = ""

    @classmethod
    def exact(cls, value: float, source: str = "") -> Quantity:
        """A value without any doubt."""
        return cls(value=value, low=value, high=value, source=source)

    def scale(self, factor: float) -> Quantity:
        """The value and its bounds, `factor` times as large."""
        return Quantity(
            value=self.value * factor,
            low=self.low * factor,
            high=self.high * factor,
            source=self.source,
        )

    @model_validator(mode="before")
    @classmethod
    def _accept_bare_number(cls, entry: Any) -> Any:
        if isinstance(entry, int | float):
            return {"value": entry, "low": entry, "high": entry}
        if isinstance(entry, dict) and "value" in entry:
            return {"low": entry["value"], "high": entry["value"], **entry}
        return entry

    @model_validator(mode="after")
    def _check_order(self) -> Quantity:
        if not 0 <= self.low <= self.value <= self.high:
            raise ValueError(
                f"needs 0 <= low <= value <= high, got {self.low}, {self.value}, {self.high}"
            )
        if self.high > 1e15:
            raise ValueError(f"cannot be more than 1e15 in any unit, got {self.high:g}")
        return self


def _limit(most: float, unit: str) -> Any:
    """A quantity that cannot be more than `most`: beyond it, a slip of the pen is all that it can be."""

    def check(quantity: Quantity) -> Quantity:
        if quantity.high > most:
            raise ValueError(f"cannot be more than {most:g} {unit}, got {quantity.high:g}")
        return quantity

    return AfterValidator(check)


Pue = Annotated[Quantity, _limit(10, "kWh of the facility per kWh of its computers")]
OverheadW = Annotated[Quantity, _limit(20_000, "W per GPU")]
Intensity = Annotated[Quantity, _limit(10_000, "g/kWh")]
WaterPerKwh = Annotated[Quantity, _limit(10_000, "L/kWh")]
Wue = Annotated[Quantity, _limit(100, "L/kWh")]

_YEAR_H = 8784
Hours = Annotated[float, Field(ge=0, le=10 * _YEAR_H)]
SomeHours = Annotated[float, Field(gt=0, le=10 * _YEAR_H)]
Seconds = Annotated[float, Field(ge=0, le=30 * 86_400)]
SomeSeconds = Annotated[float, Field(gt=0, le=30 * 86_400)]
Minutes = Annotated[float, Field(ge=0, le=31 * 1440)]
SomeMinutes = Annotated[float, Field(gt=0, le=31 * 1440)]
Share = Annotated[float, Field(ge=0, le=1)]
Times = Annotated[float, Field(gt=1, le=1e6)]
"""So many times as much."""
Part = Annotated[float, Field(gt=0, le=1e6)]
"""A part of something, which may be more than all of it: a tolerance."""


def _check_name(name: str) -> str:
    if not name.strip() or len(name) > _NAME_CHARS or not name.isprintable():
        raise ValueError(
            f"needs 1 to {_NAME_CHARS} characters that can be printed, got {name!r:.80}"
        )
    return name


_NAME_CHARS = 200
_NOT_IN_PROJECT_NAMES = "/%&<>"
"""Prefect's names, which the project's is one of, cannot have these."""


def quote_text(text: str) -> str:
    """A text as TOML writes it, whatever is in it."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def make_project_name(text: str) -> str:
    """A name that a project can have, near to a text such as the name of its folder."""
    plain = "".join(c if c.isprintable() and c not in _NOT_IN_PROJECT_NAMES else "-" for c in text)
    return plain.strip()[:_NAME_CHARS] or "wattledger"


Name = Annotated[str, AfterValidator(_check_name)]


def _check_tz(tz: str) -> str:
    if tz:
        from flows.times import parse_zone

        try:
            parse_zone(tz)
        except UsageError as error:
            raise ValueError(str(error)) from None
    return tz


TimeZone = Annotated[str, AfterValidator(_check_tz)]
"""An IANA name or an offset; empty where files say it themselves."""


def _check_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isprintable():
        raise ValueError(f"needs http:// or https:// and a host, got {url!r:.80}")
    return url


Url = Annotated[str, AfterValidator(_check_url)]
UrlIfAny = Annotated[str, AfterValidator(lambda url: _check_url(url) if url else url)]


def _assume_utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


Utc = Annotated[datetime, AfterValidator(_assume_utc)]
"""A time; without a zone it is UTC."""


def _check_period(valid_from: datetime | None, valid_to: datetime | None) -> None:
    if valid_from is not None and valid_to is not None and valid_from >= valid_to:
        raise ValueError("valid_to must be after valid_from")


class Onsite(Strict):
    """Electricity generated on site: its direct emissions are scope 1, the rest is the grid's."""

    share: Quantity
    """Share of the facility energy, 0 to 1."""
    plant: str = "gas_turbine"
    """Scope of the factors onsite_g_per_kwh and onsite_l_per_kwh (`wattledger factors list`)."""

    @model_validator(mode="after")
    def _check_share(self) -> Onsite:
        if self.share.high > 1:
            raise ValueError(f"a share is at most 1, got {self.share.high}")
        return self


class Site(Strict):
    """A data centre: its grid zone, PUE, WUE and host overhead, optionally for a period."""

    name: Name
    zone: Name
    hosts: list[str] = ["*"]
    like: str = "default"
    """Scope of the factors pue and wue_l_per_kwh (an operator, a climate) where none is given."""
    pue: Pue | None = None
    wue_l_per_kwh: Wue | None = None
    server: str = ""
    """Scope of the factor host_overhead_w_per_gpu, for example DGX-H100, where none is given, and of
    server_embodied_kg."""
    host_overhead_w_per_gpu: OverheadW | None = None
    """Everything of the host but its GPUs, where the collector did not meter the host."""
    host_rest_w_per_gpu: OverheadW = Quantity(value=0, low=0, high=0)
    """What is neither GPU, CPU nor memory (network, fans, conversion), where it did."""
    gpus_per_server: Annotated[int, Field(gt=0, le=100_000)] | None = None
    """GPUs among which a server's embodied carbon is divided; if left out, those seen on the host."""
    onsite: Onsite | None = None
    valid_from: Utc | None = None
    valid_to: Utc | None = None

    @model_validator(mode="after")
    def _check_pue(self) -> Site:
        if self.pue is not None and self.pue.low < 1:
            raise ValueError(f"PUE is at least 1, got {self.pue.low}")
        _check_period(self.valid_from, self.valid_to)
        return self


class Contract(Strict):
    """A contract or certificates for electricity, for the market-based figure.

    One of `share`, `energy_mwh` and `deliveries` says how much it covers.
    """

    name: Name
    site: str
    instrument: Literal["ppa", "certificate", "tariff"]
    matching: Literal["hourly", "annual"] = "annual"
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of all grid energy of the site, for a supplier's tariff."""
    energy_mwh: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """Volume between valid_from and valid_to, which accrues evenly."""
    deliveries: str = ""
    """CSV of valid_from, valid_to, energy_kwh, relative to the project folder."""
    intensity_g_per_kwh: Intensity = Quantity(value=0, low=0, high=0)
    valid_from: Utc
    valid_to: Utc
    source: str = ""

    @model_validator(mode="after")
    def _check_coverage(self) -> Contract:
        if sum((self.share is not None, self.energy_mwh is not None, bool(self.deliveries))) != 1:
            raise ValueError("needs one of share, energy_mwh and deliveries")
        _check_period(self.valid_from, self.valid_to)
        return self


class Tariff(Strict):
    """What a kWh costs at a site; of the tariffs that fit a moment, the last one counts."""

    site: str
    price_per_kwh: Annotated[float, Field(ge=0, le=1e9)]
    """In the currency of [project]."""
    from_hour: Annotated[int, Field(ge=0, le=23)] = 0
    to_hour: Annotated[int, Field(ge=1, le=24)] = 24
    """Hours of the day in `tz`; before from_hour it is on the next day."""
    weekdays: list[Weekday] = list(WEEKDAYS)
    tz: str = "UTC"
    valid_from: Utc | None = None
    valid_to: Utc | None = None
    source: str = ""

    @model_validator(mode="after")
    def _check_hours(self) -> Tariff:
        try:
            ZoneInfo(self.tz)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"no time zone is called {self.tz!r}") from None
        if self.from_hour == self.to_hour or not self.weekdays:
            raise ValueError("a tariff needs at least one hour and one day of the week")
        _check_period(self.valid_from, self.valid_to)
        return self


class Zone(Strict):
    """How a zone's intensity is chosen, and what stands in where no series covers a slot."""

    signal: Literal["average_lifecycle", "average_direct"] = "average_lifecycle"
    country: str = ""
    """ISO 3166-1 alpha-2, where the zone's name does not begin with it; or `world`."""
    fallback_intensity_g_per_kwh: Intensity | None = None
    ewif_l_per_kwh: WaterPerKwh | None = None
    withdrawal_l_per_kwh: WaterPerKwh | None = None
    residual_g_per_kwh: Intensity | None = None
    """Residual mix, where no series of it is loaded."""
    transmission_loss: Quantity | None = None
    """Share of generation lost on the way; adds a figure of its own (scope 3, category 3)."""
    compare: bool = True
    """Ask what finished runs would have emitted here."""

    @model_validator(mode="after")
    def _check_share(self) -> Zone:
        if self.transmission_loss is not None and self.transmission_loss.high >= 1:
            raise ValueError(f"a share below 1, got {self.transmission_loss.high}")
        return self


class Grid(Strict):
    """Which carbon intensities may be used, and how far alternatives look."""

    ladder: list[str] = list(TIERS)
    """Tiers, best first; water takes all of them, as few zones publish their generation by fuel."""
    settle_h: Hours = 48
    """Hours after which a provider's day counts as final and is not fetched again."""
    shift_h: Annotated[int, Field(ge=0, le=168)] = 24
    """Hours earlier and later for which finished runs are compared; 0 turns it off."""
    max_missing_share: Share = 0.02
    """Part of the generation that may be missing from an interval of a mix (docs/method.md, "Complete mixes")."""
    reference_days: Annotated[int, Field(ge=1, le=366)] = 31
    """Days before and after an interval that say which fuels its feed normally reports."""
    stop_days: Annotated[int, Field(ge=1, le=366)] = 7
    """Days without a fuel after which it may have stopped for good, or not have begun."""
    max_stop_share: Share = 0.1
    """Largest part of the generation that stops for good overnight; what carried more is missing."""

    @model_validator(mode="after")
    def _check_ladder(self) -> Grid:
        unknown = [tier for tier in self.ladder if tier not in TIERS]
        if unknown or not set(SERIES_TIERS) & set(self.ladder):
            raise ValueError(f"ladder takes {', '.join(TIERS)}, with live or cached among them")
        if self.ladder != sorted(self.ladder, key=TIERS.index):
            raise ValueError(f"the order of the ladder is {', '.join(TIERS)}")
        return self


class Gpu(Strict):
    """GPUs of a host that are known without readings, or a model for GPUs whose log names none."""

    host: Name
    indices: list[Annotated[int, Field(ge=0, le=100_000)]] = []
    uuids: list[Name] = []
    model: Name | None = None


class Column(Strict):
    """Where a quantity stands in a file, and in which unit."""

    column: str
    unit: str = ""


class GpuSource(Strict):
    """How to read one kind of GPU log that is neither ours nor nvidia-smi's."""

    columns: list[str] = []
    """Names by position, for files without a header line."""
    ts: Column
    ts_format: str = ""
    tz: TimeZone = ""
    power: Column | None = None
    power_by_gpu: dict[str, str] = {}
    """Wide files: GPU index -> column of its power; the unit is `power_unit`."""
    power_unit: Literal["W", "mW", "kW"] = "W"
    power_else: list[Column] = []
    """Columns of power that count, in this order, where `power` has no value."""
    power_limit: Column | None = None
    """Power limit in force, in the unit of `power_unit` if it says none."""
    energy: Column | None = None
    energy_kind: Literal["counter", "interval"] = "counter"
    """Whether `energy` rises all the time, or is that of the time since the reading before."""
    util: Column | None = None
    memory: Column | None = None
    temperature: Column | None = None
    sm_clock: Column | None = None
    gpu: str = ""
    """Column with UUID or index; without one, the file is about one GPU (index 0)."""
    host: str = ""
    model: str = ""
    unsorted: bool = False


class GridSource(Strict):
    """How to read one kind of grid series that has no layout of its own."""

    ts: Column
    intensity: Column
    zone: str
    signal: str = "average_lifecycle"
    tz: TimeZone = ""
    estimated: str = ""
    source: str = ""


class Readings(Strict):
    """What a believable reading is, and how gaps are treated."""

    max_gap_s: SomeSeconds = 30
    max_bridge_s: SomeSeconds = 3600
    max_power_w: Annotated[float, Field(gt=0, le=1e6)] = 3000
    limit_tolerance: Annotated[float, Field(ge=1, le=100)] = 1.6
    future_tolerance_s: Seconds = 300


class Ingest(Strict):
    """How much of a file may be bad before all of it is refused."""

    max_bad_rows_share: Share = 0.01
    """Part of the rows of a file that are set aside one by one; past it, the file is refused. One bad
    row among good ones never is the whole file's fault."""


class Gate(Strict):
    """Thresholds of the checks that guard publication."""

    min_carbon_coverage: Share = 1.0
    max_filled_share: Share = 1.0
    max_intensity_g_per_kwh: Annotated[float, Field(gt=0, le=1e6)] = 3000
    max_run_days: Annotated[float, Field(gt=0, le=36_525)] = 400
    second_meter_tolerance: Part = 0.1
    max_fallback_share: Share = 1.0
    min_completeness: Share = 0.9
    """Part of the readings of an hour that its recorder should have made."""
    counter_power_tolerance: Part = 0.2
    meter_tolerance: Part = 0.1
    """Difference from other meters of hosts and sites."""
    max_run_jump: Times = 2.0
    """Energy per GPU-hour of a run, times that of the run of its family before it."""
    max_year_jump: Times = 2.0
    """Energy per GPU-hour and CO2e per kWh of a site, times those of the same month a year before."""
    fail_on: list[str] = []
    """Checks (SUITE.CHECK) that only warn as they come, and are to refuse here."""
    max_restatement: Part = 0.1
    """Change of a run's published energy or CO2e beyond which a restatement is pointed out."""


class Override(Strict):
    """Lets figures pass that a check refuses; it is on the ledger and on the report."""

    check: str
    """Suite and check, for example footprint.carbon_covered."""
    by: Annotated[str, Field(min_length=1)]
    """Who answers for it."""
    reason: Annotated[str, Field(min_length=1)]
    until: date
    """Last day (UTC) on which it holds."""


class Ledger(Strict):
    """Signatures of publications (docs/verification.md)."""

    signing_key: str = ""
    """Ed25519 private key (PEM), relative to the project folder; each publication is signed with it."""
    public_key: str = ""
    """The public key (PEM) that signatures are checked with."""


class Retention(Strict):
    """What becomes of readings that are old and published (docs/verification.md)."""

    roll_up_after_days: Annotated[float, Field(gt=0, le=36_525)] | None = None
    """Age at which the pipeline replaces them by their sums over five minutes; never, if left out."""


class GpuInput(Strict):
    """Files of readings that the pipeline looks for."""

    paths: list[str]
    source: str = ""
    host: str = ""
    tz: TimeZone = ""
    model: str = ""
    gpus_per_sweep: Annotated[int, Field(ge=0, le=100_000)] = 0


class GridInput(Strict):
    """Files of grid data that the pipeline looks for."""

    paths: list[str]
    source: str = ""
    layout: str = "auto"
    zone: str = ""
    signal: str = ""
    unit: str = ""
    tz: TimeZone = ""
    provider: str = ""


class RunsInput(Strict):
    """Run tables that the pipeline looks for."""

    paths: list[str]
    tz: TimeZone = ""


class PrometheusInput(Strict):
    """A Prometheus that scrapes DCGM exporters; the pipeline fetches what is new."""

    name: str = "prometheus"
    """Names its folder under `fetched/`."""
    url: Url
    selector: str = ""
    """Label matchers, for example {cluster="a"}."""
    step_s: Annotated[float, Field(ge=1, le=86_400)] = 15
    """No longer than its scrape interval, or samples are left out."""
    lookback_h: SomeHours = 24
    """How far back the first fetch goes."""
    run_label: str = "pod"
    """Label of the series that names the run."""
    token_env: str = ""
    """Environment variable that holds a bearer token."""

    @model_validator(mode="after")
    def _check_name(self) -> PrometheusInput:
        if not self.name.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"name needs letters, digits, - and _, got {self.name!r}")
        return self


class GridApiInput(Strict):
    """A provider of grid data for one zone; the order of these entries is the order of asking."""

    provider: Literal["electricity-maps", "watttime", "uk-carbon-intensity", "entsoe", "eia"]
    zone: str
    name: str = ""
    """Names the feed; the provider if left out."""
    region: str = ""
    """What the provider calls the zone, where that differs."""
    signal: Literal["", "average_lifecycle", "average_direct"] = ""
    """For Electricity Maps: which of its two kinds of emission factors."""
    url: UrlIfAny = ""
    """Base URL, where it is not the provider's own."""
    token_env: str = ""
    """Environment variable with the token (WattTime: `user:password`); docs/providers.md."""
    token_block: str = ""
    """Prefect Secret block with the token, instead of the environment."""
    requests_per_s: Annotated[float, Field(gt=0, le=1000)] | None = None
    cache_min: Minutes = 60
    """Minutes for which an answer serves the same request again."""
    timeout_s: SomeSeconds = 60
    retries: Annotated[int, Field(ge=0, le=10)] = 4
    max_wait_s: Seconds = 120
    """Longest wait that a provider may ask for; beyond it, the next one is asked."""
    lookback_h: SomeHours = 24
    """How far back the first fetch goes, where there are no readings yet."""

    @model_validator(mode="after")
    def _complete_name(self) -> GridApiInput:
        self.name = self.name or self.provider
        if not self.name.replace("-", "").replace("_", "").isalnum() or self.name == FILE_FEED:
            raise ValueError(
                f"name needs letters, digits, - and _, and not to be {FILE_FEED!r}, got {self.name!r}"
            )
        return self


class Inputs(Strict):
    """Where the pipeline looks for data, relative to the project folder."""

    prometheus: list[PrometheusInput] = []
    gpu: list[GpuInput] = []
    grid: list[GridInput] = []
    grid_api: list[GridApiInput] = []
    runs: list[RunsInput] = []


def _check_cron(expression: str) -> str:
    from cronsim import CronSim, CronSimError

    try:
        if len(expression.split()) == 5 and next(
            CronSim(expression, datetime(2024, 1, 1, tzinfo=UTC)), None
        ):
            return expression
    except CronSimError:
        pass
    raise ValueError(
        "needs the five fields of a cron expression (minute, hour, day, month, day of the week) that "
        f"come round one day, got {expression!r:.80}"
    )


class Schedule(Strict):
    """When `wattledger serve` does what (docs/operation.md)."""

    ingest_min: SomeMinutes = 5
    """Minutes between looks for new data."""
    footprint_min: SomeMinutes = 60
    """Minutes between computations."""
    publish: Annotated[str, AfterValidator(_check_cron)] = "15 2 * * *"
    """When to publish: a cron expression, in UTC."""
    wait_s: Seconds = 900
    """How long a run waits while another one writes the warehouse."""
    port: Annotated[int, Field(ge=0, lt=65536)] = 4200
    """Port of Prefect's server and interface on this machine, where no other server is configured; 0: any."""


def _check_project_name(name: str) -> str:
    if not set(_NOT_IN_PROJECT_NAMES).isdisjoint(name):
        raise ValueError(f"cannot have / % & < or > (Prefect's names cannot), got {name!r:.80}")
    return _check_name(name)


class Project(Strict):
    """What the project is called; the title heads its report."""

    name: Annotated[str, AfterValidator(_check_project_name)] = "wattledger"
    title: str = ""
    currency: str = "USD"
    """Of all tariffs."""


class Lake(Strict):
    """A warehouse that several machines share (docs/scale.md), in place of warehouse.duckdb."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    attach: str
    """`ducklake:postgres:` and how to connect to PostgreSQL: `dbname=ledger host=db user=wattledger`. Its
    password comes from PGPASSWORD or ~/.pgpass."""
    data: str
    """Where the rows are: `s3://bucket/folder`, or a folder that all machines see. Keys of S3 come from
    AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."""
    s3_endpoint: str = ""
    """host:port of an object store that is not Amazon's."""
    s3_region: str = ""
    s3_use_ssl: bool = True

    @model_validator(mode="after")
    def _check_attach(self) -> Lake:
        if not self.attach.startswith(_DUCKLAKE):
            raise ValueError(f"attach begins with {_DUCKLAKE}, got {self.attach!r}")
        return self

    @property
    def postgres(self) -> str:
        """How to connect to PostgreSQL."""
        return self.attach.removeprefix(_DUCKLAKE)

    @property
    def is_remote(self) -> bool:
        """Whether the rows are in an object store."""
        return "://" in self.data

    def __str__(self) -> str:
        return f"the lake {self.attach}"


_DUCKLAKE = "ducklake:postgres:"


class Cluster(Strict):
    """Dask workers among which the heavy parts are divided; only with a [lake], which all of them can read.

    One of `workers` (processes on this machine, for one flow run) and `address` (a scheduler, whose
    workers see the project folder under the same path).
    """

    workers: Annotated[int, Field(gt=0, le=100_000)] = 4
    address: str = ""
    """For example tcp://scheduler:8786."""
    files: Annotated[int, Field(gt=0, le=1_000_000)] = 256
    """Files that one task loads."""


class FileSettings(Strict):
    """The whole of wattledger.toml."""

    project: Project = Project()
    readings: Readings = Readings()
    ingest: Ingest = Ingest()
    gate: Gate = Gate()
    override: list[Override] = []
    ledger: Ledger = Ledger()
    retention: Retention = Retention()
    lake: Lake | None = None
    cluster: Cluster | None = None
    schedule: Schedule = Schedule()
    grid: Grid = Grid()
    input: Inputs = Inputs()
    site: list[Site] = []
    contract: list[Contract] = []
    tariff: list[Tariff] = []
    gpu: list[Gpu] = []
    zones: dict[str, Zone] = {}
    factors: dict[str, dict[str, Quantity]] = {}
    sources: dict[str, GpuSource] = {}
    grid_sources: dict[str, GridSource] = {}

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if self.cluster is not None and self.lake is None:
            raise ValueError("[cluster] needs a [lake]: a file has one writer")
        feeds = [(source.name, source.zone) for source in self.input.grid_api]
        if len(set(feeds)) < len(feeds):
            raise ValueError("two [[input.grid_api]] of one zone share a name")
        contracts = [contract.name for contract in self.contract]
        if len(set(contracts)) < len(contracts):
            raise ValueError("two [[contract]] share a name")
        sites = {site.name for site in self.site}
        for contract in self.contract:
            if contract.site not in sites:
                raise ValueError(f"contract {contract.name!r} names no [[site]]: {contract.site!r}")
        for tariff in self.tariff:
            if tariff.site not in sites:
                raise ValueError(f"a tariff names no [[site]]: {tariff.site!r}")
        return self


class Settings(FileSettings):
    """wattledger.toml, and what is known of a project beside it."""

    root: Path = Path()
    """The project folder."""
    wait_s: float = 0.0
    """Seconds to wait while another process writes the warehouse."""

    def to_record(self) -> dict[str, str]:
        """What a publication says of these settings: each table as JSON, defaults included.

        How files are read is not in it (what was read is in the ledger), nor where things are.
        """
        tables = self.model_dump(mode="json", exclude=_UNRECORDED)
        providers = [
            source.model_dump(mode="json", include={"provider", "zone", "name", "signal"})
            for source in self.input.grid_api
        ]
        tables["input"] = {"grid_api": providers}
        return {
            section: json.dumps(value, sort_keys=True) for section, value in sorted(tables.items())
        }

    @classmethod
    def from_record(cls, record: Mapping[str, str]) -> Settings:
        """Settings as `to_record` gave them."""
        return cls.model_validate({section: json.loads(value) for section, value in record.items()})

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

    @property
    def published_database(self) -> Path:
        """The figures in force."""
        return self.published / PUBLISHED_DATABASE

    def find_site(self, host: str) -> str | None:
        """The first site one of whose host patterns fits a host."""
        for site in self.site:
            if any(fnmatchcase(host, pattern) for pattern in site.hosts):
                return site.name
        return None


_UNRECORDED = {
    "root",
    "wait_s",
    "ingest",
    "sources",
    "grid_sources",
    "input",
    "ledger",
    "lake",
    "cluster",
    "schedule",
}


def load(root: Path, wait_s: float = 0.0) -> Settings:
    """Read `root/wattledger.toml`.

    Args:
        root: The project folder.
        wait_s: Seconds to wait while another process writes the warehouse.

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
    except UnicodeDecodeError as error:
        raise SettingsError(f"not valid TOML: {error}", where=str(path)) from None
    settings = parse(text, path)
    settings.root, settings.wait_s = root, wait_s
    return settings


def parse(text: str, path: Path) -> Settings:
    """Settings from the text of a file; `path` is for messages.

    Raises:
        SettingsError: not TOML, or a setting that makes no sense (named).
    """
    try:
        return Settings(**dict(FileSettings.model_validate(tomllib.loads(text))))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError(f"not valid TOML: {error}", where=str(path)) from None
    except ValidationError as error:
        raise explain_invalid(error, path) from None


def explain_invalid(error: ValidationError, path: object) -> SettingsError:
    """The first thing that is wrong with a file, as a sentence."""
    first = error.errors()[0]
    setting = ".".join(str(part) for part in first["loc"])
    return SettingsError(
        f"{first['msg'].removeprefix('Value error, ')} (got {first['input']!r:.80})",
        where=f"{path}, setting {setting}",
        remedy="See docs/settings.md for every setting",
    )
