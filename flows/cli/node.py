"""Commands on a GPU node: collect, run, job."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import Json, require_range
from flows.cli.output.console import print_json

if TYPE_CHECKING:
    from wattledger.spool.spool import Spool

commands = typer.Typer()
job = typer.Typer(
    help="Record a scheduler's jobs from its prolog and epilog (docs/deploy).",
    no_args_is_help=True,
    rich_markup_mode=None,
)
commands.add_typer(job, name="job")

SpoolFolder = Annotated[
    str,
    typer.Option(
        "--spool", help="Folder for readings.", envvar="WATTLEDGER_SPOOL", show_default="auto"
    ),
]
Rate = Annotated[
    float, typer.Option(callback=require_range(0.01, 20), help="Readings per GPU and second.")
]
HostMeter = Annotated[bool, typer.Option(help="Measure (RAPL) or model CPU and memory too.")]


@commands.command()
def collect(
    spool: SpoolFolder = "",
    rate: Rate = 1.0,
    flush: Annotated[
        float,
        typer.Option(
            callback=require_range(0.1, 3600),
            help="Seconds between writes: what a power cut can lose.",
        ),
    ] = 10.0,
    segment: Annotated[
        float,
        typer.Option(callback=require_range(1, 86_400), help="Seconds of readings in one file."),
    ] = 600.0,
    max_spool: Annotated[
        int, typer.Option(help="MiB that the spool may hold before readings are thinned.")
    ] = 8192,
    host_meter: HostMeter = True,
    dcgm: Annotated[
        str, typer.Option(help="URL of a DCGM exporter's /metrics, to read instead of the driver.")
    ] = "",
    run_label: Annotated[
        str, typer.Option(help="The exporter's label that names the run of a GPU.")
    ] = "pod",
    status: Annotated[
        bool,
        typer.Option(
            "--status", help="Print how this host's collector is doing; exit with 1 if none runs."
        ),
    ] = False,
    json_: Json = False,
) -> None:
    """Read this host's GPUs until told to stop; readings go to the spool as Parquet segments."""
    if status:
        _print_collector_status(_open_spool(spool), as_json=json_)
        return
    from wattledger.config import Config
    from wattledger.process import child_environment, module_command

    config = Config(
        spool=spool,
        period_s=1 / rate,
        flush_s=flush,
        segment_s=segment,
        max_spool_mib=max_spool,
        host_meter=host_meter,
        dcgm_url=dcgm,
        run_label=run_label,
    )
    words = module_command("wattledger.collect.collector", config.as_json())
    # In place of this process, so that the collector has loaded nothing that it does not need.
    os.execve(words[0], words, child_environment())


def _open_spool(folder: str) -> Spool:
    from flows.errors import UsageError
    from wattledger.spool.spool import Spool, default_root, hostname

    try:
        return Spool(Path(folder) if folder else default_root(), hostname())
    except OSError as error:
        raise UsageError(error.strerror or str(error), where=hostname()) from None


def _print_collector_status(spool: Spool, *, as_json: bool) -> None:
    running = spool.read_running_status()
    status = running or spool.read_status()
    if as_json:
        print_json({"running": running is not None, "spool": str(spool.folder), **status})
    else:
        from flows.cli.output import node as output

        output.print_collector(spool, status, running=running is not None)
    if running is None:
        raise typer.Exit(1)


@commands.command(
    context_settings={"allow_interspersed_args": False},
)
def run(
    command: Annotated[list[str], typer.Argument(help="The command and its arguments.")],
    name: Annotated[str, typer.Option(help="Name of the run.", show_default="the script's")] = "",
    label: Annotated[list[str] | None, typer.Option(help="A label, KEY=VALUE; repeatable.")] = None,
    run_id: Annotated[
        str,
        typer.Option(help="The same on all ranks and nodes.", show_default="from the launcher"),
    ] = "",
    spool: SpoolFolder = "",
    project: Annotated[
        str,
        typer.Option(
            "--project",
            "-p",
            help="Project folder, whose site and grid give CO2e and water.",
            envvar="WATTLEDGER_PROJECT",
            show_default="this folder",
        ),
    ] = "",
    rate: Rate = 1.0,
    host_meter: HostMeter = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing.")] = False,
) -> None:
    """Run a command and record what it drew: wattledger run -- python train.py"""
    from wattledger.runs.launch import launch_command
    from wattledger.runs.session import Options

    labels = dict(_parse_label(text) for text in label or [])
    options = Options(name, run_id, labels, spool, project, quiet, 1 / rate, host_meter)
    raise typer.Exit(launch_command(command, options))


def _parse_label(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise typer.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--label")
    return key, value


@job.command("begin")
def begin(spool: SpoolFolder = "") -> None:
    """Record that a job begins on this node; for a prolog."""
    from wattledger.runs.job import begin_job

    _record_job(begin_job, spool)


@job.command("end")
def end(spool: SpoolFolder = "") -> None:
    """Record that the job has ended; for an epilog."""
    from wattledger.runs.job import end_job

    _record_job(end_job, spool)


def _record_job(write_record: Callable[..., Any], folder: str) -> None:
    from flows.errors import BadInput, WarehouseError
    from wattledger.runs.job import NoJob

    spool = _open_spool(folder)
    try:
        record = write_record(os.environ, spool)
    except NoJob as error:
        raise BadInput(str(error), remedy="See docs/deploy/slurm.md") from None
    except (OSError, ValueError) as error:
        raise WarehouseError(str(error), where=str(spool.runs)) from None
    print(f"{record.run_id}: {len(record.gpus)} GPUs of {record.host}")
