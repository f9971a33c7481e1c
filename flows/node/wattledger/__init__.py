"""Wattledger in your training code.

    import wattledger

    with wattledger.track("llama-7b", labels={"team": "nlp"}) as run:
        train()
    print(run.summary)

    @wattledger.track("nightly-eval")
    def evaluate(): ...

Nothing is imported into your process but the standard library. Recording happens in a process beside
it; whatever fails there is reported on stderr and never stops your work. For PyTorch Lightning and the
Hugging Face Trainer: `wattledger.callbacks`.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ContextDecorator, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from wattledger.process import child_environment, module_command

if TYPE_CHECKING:
    from flows.ledger import Ledger

__all__ = ["Tracked", "open", "track"]
__version__ = "0.1.0"

_PATIENCE_S, _SUMMARY_S = 30.0, 180.0
"""How long the helper may take: to begin or to end, and to compute the summary."""


class Tracked(ContextDecorator):
    """A run that is being recorded: a context manager, and a decorator.

    `run_id` is set when the run has begun, `summary` when it has ended: a dictionary of energy and,
    where a project gives factors, CO2e and water, with units in the keys; empty if there is none.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = dict(options)
        self._helper: subprocess.Popen[str] | None = None
        self._pid = 0
        self.run_id = ""
        self.summary: dict[str, Any] = {}

    def _recreate_cm(self) -> Tracked:
        # Each call of a decorated function is a run of its own.
        return Tracked(self._options)

    def __enter__(self) -> Tracked:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        else:
            code = int(error is not None)
        self.stop(code)

    def start(self) -> Tracked:
        """Begin recording."""
        if self._helper is not None:
            raise RuntimeError("this run has begun already; call wattledger.track again")
        self._pid = os.getpid()
        try:
            self._helper = subprocess.Popen(
                module_command("wattledger.runs.attach"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=child_environment(),
                start_new_session=True,
            )
            begin = {**self._options, "pid": self._pid, "program": sys.argv[:1]}
            self.run_id = self._ask_helper(begin).get("run_id", "")
            if not self.run_id:
                raise ValueError("its helper ended at once")
        except Exception as error:  # The program goes on, whatever this is.
            print(f"wattledger: the run is not recorded: {error}", file=sys.stderr)
        return self

    def stop(self, exit_code: int = 0) -> None:
        """End recording. In a forked child this does nothing: the run is its parent's."""
        helper, self._helper = self._helper, None
        if helper is None or os.getpid() != self._pid:
            return
        self._helper = helper
        with suppress(Exception):
            self.summary = self._ask_helper({"exit_code": exit_code}, _SUMMARY_S)
        self._helper = None
        for pipe in (helper.stdin, helper.stdout):
            with suppress(OSError):
                assert pipe is not None
                pipe.close()
        with suppress(subprocess.TimeoutExpired):
            helper.wait(timeout=_PATIENCE_S)

    def _ask_helper(
        self, message: Mapping[str, Any], seconds: float = _PATIENCE_S
    ) -> dict[str, Any]:
        """Send the helper a line of JSON; returns its answer, empty where it gives none in time."""
        assert self._helper is not None
        assert self._helper.stdin is not None
        assert self._helper.stdout is not None
        self._helper.stdin.write(json.dumps(message, default=str) + "\n")
        self._helper.stdin.flush()
        if not select.select([self._helper.stdout], [], [], seconds)[0]:
            raise TimeoutError(f"its helper gave no answer for {seconds:g} s")
        answer = json.loads(self._helper.stdout.readline() or "{}")
        return answer if isinstance(answer, dict) else {}


def track(
    name: str = "",
    *,
    labels: Mapping[str, str] | None = None,
    run_id: str = "",
    spool: str = "",
    project: str = "",
    quiet: bool = False,
    period_s: float = 1.0,
    host_meter: bool = True,
) -> Tracked:
    """Record what runs inside as a training run.

    Args:
        name: name of the run; the script's name if left out.
        labels: free labels, kept with the run.
        run_id: the same on all ranks and nodes; taken from Slurm, torchrun, MPI or Kubernetes if
            left out. Inside `wattledger run`, a tracked part belongs to that run.
        spool: folder of the readings; `WATTLEDGER_SPOOL` or the default if left out.
        project: folder with wattledger.toml, whose site and grid give CO2e and water.
        quiet: print nothing, and compute no summary.
        period_s: seconds between readings, if a collector has to be started.
        host_meter: measure or model CPU and memory too, if a collector has to be started.
    """
    return Tracked(
        {
            "name": name,
            "labels": dict(labels or {}),
            "run_id": run_id,
            "spool": spool,
            "project": project,
            "quiet": quiet,
            "period_s": period_s,
            "host_meter": host_meter,
        }
    )


def open(  # noqa: A001 (as `gzip.open`: it is called by its full name)
    project: str | os.PathLike[str] = ".", *, publication: str = "", warehouse: bool = False
) -> Ledger:
    """Open the ledger of a project: its runs, figures, series and SQL as Polars frames (docs/python.md).

    Args:
        project: Folder with wattledger.toml.
        publication: Number or id of a publication; the one in force if left out.
        warehouse: Read the figures that were computed last, published or not.

    Raises:
        flows.errors.WattledgerError: there is no project there, nothing is published yet, or there is no such publication.
    """
    # Whoever only tracks runs loads none of the ledger's packages; they are found by name, as nodes may lack them.
    ledger: type[Ledger] = importlib.import_module("flows.ledger").Ledger
    return ledger(Path(project), publication=publication, warehouse=warehouse)
