"""The command `wattledger`: its groups of commands, and how mistakes end.

Heavy imports wait until a command runs. Exit codes: 0 fine, 1 usage or settings, 2 bad input or no answer (the good
part was done), 3 the gate refused or verification failed, 4 the warehouse (or this host's collector) is busy,
5 the warehouse or disk failed (damaged, full, forbidden, newer), 6 a flow failed, 7 no GPU driver, 8 out of memory.
`wattledger run` ends as its command does.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

# The Click that Typer brings has no public name for what all usage errors have in common.
from typer._click.exceptions import ClickException

from flows import __version__
from flows.cli import figures, loading, node, project, publications, service
from flows.errors import WattledgerError

app = typer.Typer(
    name="wattledger",
    help="What a training run cost in energy, water and CO2: measured, gated, recomputable.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 fine, 1 usage or settings, 2 bad input, 3 gate or verification failed, "
    "4 warehouse or collector busy, 5 warehouse or disk failed, 6 flow failed, 7 no GPU driver, 8 out of memory. "
    "`wattledger run` ends as its command does.",
)
for group in (project, service, loading, figures, publications, node):
    app.add_typer(group.commands)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"wattledger {__version__}")
        raise typer.Exit


@app.callback()
def set_options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run a command; turn mistakes into sentences and exit codes."""
    try:
        status = app(standalone_mode=False)
    except WattledgerError as error:
        _print_error(str(error))
        sys.exit(error.exit_code)
    except typer.Abort:
        _print_error("interrupted; what was reported loaded or published is stored")
        sys.exit(130)
    except ClickException as error:
        error.show()
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except Exception as error:
        if (
            type(error) is RuntimeError and str(error) == "Query interrupted"
        ):  # So DuckDB says Ctrl-C.
            _print_error("interrupted; what was reported loaded or published is stored")
            sys.exit(130)
        failure = _explain_storage(error)
        if failure is None:
            raise
        _print_error(str(failure))
        sys.exit(failure.exit_code)
    sys.exit(status if isinstance(status, int) else 0)


def _explain_storage(error: Exception) -> WattledgerError | None:
    """The sentence for a database that failed while it was read; None for every other error."""
    if "duckdb" not in sys.modules and not isinstance(error, MemoryError):
        return None
    from flows.warehouse.failures import explain_failure

    return explain_failure(error)


def _print_error(text: str) -> None:
    from rich.markup import escape

    from flows.cli.output.console import make_console

    make_console(stderr=True).print(f"[bold red]error:[/] {escape(text)}", soft_wrap=True)
