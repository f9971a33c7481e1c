"""The steps of the schedule that `bench.soak` does and kills; processes start with this imported."""

from __future__ import annotations

from pathlib import Path

from expectations.gate import load_great_expectations
from flows import settings as settings_module
from flows.accounting.compute import compute
from flows.ingest.gpu import ingest_gpu
from flows.ingest.grid import ingest_grid
from flows.ingest.runs import ingest_runs
from flows.publication.publish import publish_candidate
from flows.sources.grid import layouts

load_great_expectations()


def work(root: Path, step: str) -> bool:
    """One step of the schedule; whether something was published."""
    settings = settings_module.load(root)
    if step == "ingest":
        if (root / "readings").is_dir():
            ingest_gpu(settings, [root / "readings"])
        ingest_grid(
            settings, [root / "grid.csv"], layouts.Options("SIM", "", "", "", ""), "auto", ""
        )
        ingest_runs(settings, [root / "runs.csv"], "")
    elif step == "compute":
        compute(settings)
    else:
        compute(settings)
        return publish_candidate(settings).changed
    return False
