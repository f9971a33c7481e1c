"""How to collect: what the command line, a run and the collector agree on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Config:
    """How to collect."""

    spool: str = ""
    host: str = ""
    period_s: float = 1.0
    flush_s: float = 10.0
    segment_s: float = 600.0
    max_spool_mib: int = 8192
    retry_s: float = 5.0
    """How long a lost GPU or driver is left alone before the next try."""
    max_buffer: int = 20_000
    """Readings kept in memory while they can't be stored; beyond it they are thinned."""
    host_meter: bool = True
    """Measure or model CPU and memory too."""
    gpus_required: bool = True
    """End where there is no driver; else go on with the host alone."""
    dcgm_url: str = ""
    """Read a DCGM exporter's /metrics instead of the driver."""
    run_label: str = "pod"
    """Label of the exporter's series that names the run."""
    linger_s: float | None = None
    """Stop when no run has been active for so long; None: go on until told to stop."""

    @classmethod
    def from_json(cls, text: str) -> Config:
        return cls(**json.loads(text))

    def as_json(self) -> str:
        return json.dumps(asdict(self))
