"""A new project folder: wattledger.toml with every setting that most people touch, commented."""

from __future__ import annotations

import json
from pathlib import Path

from flows.errors import SettingsError, UsageError
from flows.factors import effective
from flows.settings import FILE_NAME, load, parse

TEMPLATE = """\
# Wattledger project. Every setting: docs/settings.md. Times without a zone are UTC here.

[project]
name = "{name}"
title = "{title}"

# Where the pipeline looks for data, relative to this file. Each file is loaded exactly once,
# by content; a new file is picked up on the next run.
[[input.gpu]]
paths = ["readings/**/*.parquet"]          # the spool of the collector (docs/collector.md)
# [[input.gpu]]
# paths = ["logs/*.csv"]                   # nvidia-smi --query-gpu=... --format=csv
# host = "node01"                          # needed where the log names no GPU UUID
# tz = "Europe/Berlin"                     # nvidia-smi writes local times
# model = "NVIDIA H100 80GB HBM3"          # where the log has no name column

# Grid data is optional: without any, figures rest on the yearly mix of the zone's country, and say so.
[[input.grid]]
paths = ["grid/*.csv"]
# zone = "DE"                              # where the file does not say
# tz = "UTC"
# [[input.grid_api]]                       # docs/providers.md; the order is the order of asking
# provider = "electricity-maps"            # or watttime, uk-carbon-intensity, entsoe, eia
# zone = "DE"                              # its token: in the environment, ELECTRICITY_MAPS_TOKEN

[[input.runs]]
paths = ["runs/*.csv", "runs/*.json", "runs/*.toml", "readings/*/runs/*.json"]

# The data centre. PUE and WUE change with seasons and sites: repeat [[site]] with valid_from and
# valid_to, or with other hosts. A bare number means low = value = high; better say the range.
[[site]]
name = "main"
hosts = ["*"]
zone = "DE"
pue = {{ value = 1.3, low = 1.1, high = 1.6 }}
wue_l_per_kwh = {{ value = 0.5, low = 0.0, high = 1.8 }}
# CPU, memory, network and fans per GPU; left out, they are not counted, and the report says so.
# Where the collector meters CPU and memory, only the rest (network, fans, conversion) is added.
# host_overhead_w_per_gpu = {{ value = 250, low = 150, high = 575 }}
# host_rest_w_per_gpu = {{ value = 60, low = 30, high = 150 }}

# How much of a run may rest on less than measurements and series.
# [gate]
# max_fallback_share = 0.2                # energy whose intensity may be no series of its zone
# min_carbon_coverage = 1.0                # energy that needs a carbon intensity at all
# max_filled_share = 0.2                   # energy that may be filled for want of readings
# [zones.DE]
# fallback_intensity_g_per_kwh = {{ value = 380, low = 100, high = 700, source = "yearly mean" }}

# Market-based figures: contracts and certificates (docs/method.md); the rest takes the residual mix.
# [[contract]]
# name = "wind park"
# site = "main"
# instrument = "ppa"
# matching = "hourly"                      # or annual
# deliveries = "contracts/wind.csv"        # valid_from,valid_to,energy_kwh; or energy_mwh, or share
# valid_from = 2026-01-01T00:00:00Z
# valid_to = 2027-01-01T00:00:00Z

# GPUs without readings, or models for logs that name none.
# [[gpu]]
# host = "node01"
# indices = [0, 1, 2, 3, 4, 5, 6, 7]
# model = "NVIDIA H100 80GB HBM3"
"""


def override_factor(
    folder: Path, name: str, scope: str, value: float, *, low: float, high: float, source: str
) -> Path:
    """Add a factor to the settings file; what is written there already is left as it is.

    Raises:
        UsageError: it is overridden already.
        SettingsError: no such factor, or bounds that make no sense; nothing is written.
    """
    path = folder / FILE_NAME
    now = load(folder)
    if scope in now.factors.get(name, {}):
        raise UsageError(
            f"{name} {scope!r} is overridden already",
            where=str(path),
            remedy=f"Edit [factors.{name}] there",
        )
    lines = [
        f"[factors.{name}.{json.dumps(scope)}]",
        f"value = {value!r}",
        f"low = {low!r}",
        f"high = {high!r}",
        f"source = {json.dumps(source)}",
    ]
    text = path.read_text("utf-8").rstrip("\n") + "\n\n" + "\n".join(lines) + "\n"
    half = path.with_name(f".{FILE_NAME}.new")
    half.write_text(text, encoding="utf-8")
    try:
        effective(parse(text, path))
    except SettingsError:
        half.unlink()
        raise
    half.replace(path)
    return path


def create_project(folder: Path) -> Path:
    """Make `folder` a project; returns its settings file.

    Raises:
        UsageError: it already is one.
    """
    path = folder / FILE_NAME
    if path.exists():
        raise UsageError(
            "this folder is a project already",
            where=str(path),
            remedy="Edit it, or choose another folder",
        )
    for name in ("readings", "grid", "runs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    name = folder.resolve().name or "wattledger"
    path.write_text(TEMPLATE.format(name=name, title=name), encoding="utf-8")
    return path
