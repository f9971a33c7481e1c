"""The demo: a project with real grid data and measured, given or sample GPU readings."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import polars as pl

from flows.errors import UsageError
from flows.samples.host import Work, generate_host_readings
from flows.settings import FILE_NAME, Settings, quote_text
from flows.sources.gpu import segments
from flows.sources.gpu.nvidia_smi import Options

_GRID = ("DE_2020-10-24_27_entsoe_generation.csv", "NL_2020-10-24_27_entsoe_generation.csv")
_START = datetime(2020, 10, 24, 20, tzinfo=UTC)
_SECONDS = 8 * 3600
LIVE_SECONDS = 15.0

_SETTINGS = """\
# Made by `wattledger demo`.
[project]
name = "wattledger-demo"
title = "{title}"
currency = "EUR"

[[input.gpu]]
paths = ["readings/*"]
{options}
[[input.grid]]
paths = ["grid/DE_*.csv"]
zone = "DE"

[[input.grid]]
paths = ["grid/NL_*.csv"]
zone = "NL"

# Another zone, for the question where it would have been cleaner.
[zones.NL]

[[input.runs]]
paths = ["runs.csv"]

# An imagined data centre on the German grid; PUE and WUE are assumptions of this demo.
[[site]]
name = "demo"
hosts = ["*"]
zone = "DE"
pue = {{ value = 1.20, low = 1.10, high = 1.40 }}
wue_l_per_kwh = {{ value = 0.50, low = 0.10, high = 1.80 }}
host_overhead_w_per_gpu = {{ value = 250, low = 150, high = 575 }}

# An imagined price, cheaper at night.
[[tariff]]
site = "demo"
price_per_kwh = 0.18

[[tariff]]
site = "demo"
price_per_kwh = 0.12
from_hour = 23
to_hour = 6
tz = "Europe/Berlin"
"""

_RUNS = """\
run_id,name,owner,model,started_at,ended_at,host,gpu,share,family,phase,outcome,functional_unit,functional_units
llm-7b-pretrain,7B pretraining,foundation,demo-7b,2020-10-24T20:15:00Z,2020-10-25T01:40:00Z,node01;node02,0-3,1,demo-7b,training,completed,token,1.2e9
llm-7b-finetune,instruction tuning,applied,demo-7b-it,2020-10-25T01:52:30Z,2020-10-25T03:31:10Z,node01,0-3,1,demo-7b,training,completed,token,9e7
vision-base,ViT-B from scratch,vision,demo-vit,2020-10-24T22:03:20Z,2020-10-25T02:47:05Z,node02,4-7,1,demo-vit,training,completed,sample,2.5e7
ablation-a,learning rate sweep A,applied,demo-1b,2020-10-24T20:40:00Z,2020-10-24T23:10:00Z,node01,4-5,0.5,demo-7b,development,completed,,
ablation-b,learning rate sweep B,applied,demo-1b,2020-10-24T21:20:00Z,2020-10-25T00:25:00Z,node01,4-5,0.5,demo-7b,development,failed,,
eval-nightly,nightly evaluation,applied,demo-7b,2020-10-25T02:10:00Z,,node01,6,1,demo-7b,evaluation,,,
"""


def prepare_demo(
    folder: Path,
    *,
    gpu_log: Path | None = None,
    options: Options | None = None,
    live: bool = False,
    progress: Callable[[float], None] = lambda seconds: None,
) -> str:
    """Write the demo project into a folder.

    Args:
        folder: The project folder; what it holds of an earlier demo is kept.
        gpu_log: Take the readings from this log.
        options: What the log does not say of itself.
        live: Without a log, measure this machine's GPUs; else readings are generated, the same ones
            every time.
        progress: Is told how many seconds were measured.

    Returns:
        A sentence: where the readings come from.

    Raises:
        BadInput, UsageError: the log cannot be used.
        UsageError: `folder` holds something that is not a demo project.
    """
    settings = folder / FILE_NAME
    if settings.exists() and "Made by `wattledger demo`" not in settings.read_text("utf-8"):
        raise UsageError(
            "this folder holds another project",
            where=str(folder),
            remedy="Choose another with --project",
        )
    readings = folder / "readings"
    for subfolder in (readings, folder / "grid"):
        subfolder.mkdir(parents=True, exist_ok=True)
    for name in _GRID:
        data = resources.files("flows").joinpath(f"data/grid/{name}").read_bytes()
        _write_if_changed(folder / "grid" / name, data)
    reader_options = ""
    if gpu_log is not None:
        origin, reader_options = _take_log(folder, gpu_log, options or Options())
    elif live:
        origin = _measure_gpus(folder, progress)
    else:
        origin = _generate_sample(folder)
    title = "Demo: sample readings on a real grid" if not (gpu_log or live) else "Demo"
    _write_if_changed(settings, _SETTINGS.format(title=title, options=reader_options).encode())
    return origin


def _write_if_changed(path: Path, data: bytes) -> None:
    if not path.exists() or path.read_bytes() != data:
        path.write_bytes(data)


def _generate_sample(folder: Path) -> str:
    """Generate readings of two nodes of 8 x H100, eight hours; the second one without energy counter."""
    work = {
        "node01": [
            Work(range(4), 900, 20_400),
            Work(range(4), 21_150, 27_070, "finetuning"),
            Work((4, 5), 2_400, 15_900, "finetuning"),
            Work((6,), 22_200, _SECONDS, "evaluation"),
        ],
        "node02": [Work(range(4), 900, 20_400), Work(range(4, 8), 7_400, 24_425)],
    }
    for host, host_work in work.items():
        path = folder / "readings" / f"{host}.parquet"
        if path.exists():
            continue
        counter = host == "node01"
        readings = generate_host_readings(
            host, gpus=8, start=_START, seconds=_SECONDS, work=host_work, counter=counter
        )
        segments.write(_add_faults(readings, counter), path, sample=True)
    _write_if_changed(folder / "runs.csv", _RUNS.encode())
    return (
        "GPU readings: SAMPLE made by Wattledger's generator (2 nodes of 8 x H100, 8 hours at 1 Hz); "
        "grid: real, Germany 2020-10-24/25, ENTSO-E Transparency Platform"
    )


def _add_faults(readings: pl.DataFrame, counter: bool) -> pl.DataFrame:
    """Add what real logs have: minutes without readings, and a driver reload (counter from zero)."""
    since = (pl.col("ts") - pl.lit(_START)).dt.total_seconds()
    hole = (pl.col("gpu_index") == 2) & since.is_between(9_000, 9_240)
    if not counter:
        return readings.filter(~hole)
    reloaded = since >= 20_700
    start = pl.col("energy_mj").filter(reloaded).first().over("gpu_uuid")
    return readings.filter(~hole).with_columns(
        energy_mj=pl.when(reloaded).then(pl.col("energy_mj") - start).otherwise("energy_mj")
    )


def _measure_gpus(folder: Path, progress: Callable[[float], None]) -> str:
    """Let the collector run for a quarter of a minute, and add a run over that time.

    Raises:
        UsageError: the collector found no GPU.
    """
    from wattledger.config import Config
    from wattledger.process import child_environment, module_command

    with tempfile.TemporaryDirectory(dir=folder) as spool:
        config = Config(spool=spool, period_s=0.2, host_meter=False)
        collector = subprocess.Popen(
            module_command("wattledger.collect.collector", config.as_json()),
            env=child_environment(),
        )
        began = time.monotonic()
        while (spent := time.monotonic() - began) < LIVE_SECONDS and collector.poll() is None:
            progress(spent)
            time.sleep(0.1)
        collector.terminate()
        written = sorted(Path(spool).glob("*/*.parquet")) if collector.wait() == 0 else []
        if not written:
            raise UsageError(
                "the collector found no GPU to read",
                remedy="See its message above, or pass --sample",
            )
        readings = pl.read_parquet(written[0], glob=False)
        first, last = readings["ts"].min(), readings["ts"].max()
        assert isinstance(first, datetime)
        assert isinstance(last, datetime)
        name = f"live-{first:%Y%m%dT%H%M%SZ}"
        shutil.move(written[0], folder / "readings" / f"{name}.parquet")
    _add_run(folder, name, first, last, [readings["host"][0]])
    return (
        f"GPU readings: measured now through NVML, {readings['gpu_uuid'].n_unique()} GPUs, "
        f"{LIVE_SECONDS:g} s; grid: Germany's yearly mix"
    )


def _take_log(folder: Path, log: Path, options: Options) -> tuple[str, str]:
    """Copy a log into the project, and add a run over all of it.

    Returns:
        A sentence on where the readings come from, and lines of [[input.gpu]] with its options.
    """
    from flows.sources.gpu.reader import stage

    host, tz = options.host or "my-node", options.tz or "UTC"
    options = Options(host, tz, options.model, options.gpus)
    # Its name keeps it apart from other logs given to the same demo project.
    copied = folder / "readings" / log.name
    scratch = Settings()
    scratch.root = folder
    staged = stage(log, scratch, options)
    try:
        span = pl.scan_parquet(staged.path, glob=False).select(
            first=pl.col("ts").min(), last=pl.col("ts").max(), gpus=pl.col("gpu_uuid").n_unique()
        )
        row = span.collect().row(0, named=True)
        hosts = (
            pl.scan_parquet(staged.path, glob=False)
            .select("host")
            .unique()
            .collect()["host"]
            .sort()
            .to_list()
        )
    finally:
        if not staged.own:
            staged.path.unlink(missing_ok=True)
    if copied.resolve() != log.resolve():
        shutil.copyfile(log, copied)
    _add_run(folder, "my-run", row["first"], row["last"], hosts)
    reader_options = (
        f"host = {quote_text(host)}\ntz = {quote_text(tz)}\nmodel = {quote_text(options.model)}\n"
        f"gpus_per_sweep = {options.gpus}\n"
    )
    return (
        f"GPU readings: {log} ({row['gpus']} GPUs, host {host}, times read as {tz}; change with "
        "--host and --tz); grid: the bundled German series where it covers, else Germany's yearly mix",
        reader_options,
    )


def _add_run(folder: Path, run_id: str, first: datetime, last: datetime, hosts: list[str]) -> None:
    path = folder / "runs.csv"
    header = "run_id,started_at,ended_at,host,gpu\n"
    text = path.read_text("utf-8") if path.exists() else header
    line = f"{run_id},{first.isoformat()},{last.isoformat()},{';'.join(hosts)},all\n"
    others = [row for row in text.splitlines(keepends=True) if not row.startswith(f"{run_id},")]
    _write_if_changed(path, "".join([*others, line]).encode())
