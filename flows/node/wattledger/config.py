"""How to collect: the options that the command line or a run hands to the collector."""

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
    """Readings kept in memory while they cannot be stored; beyond it they are thinned."""
    host_meter: bool = True
    """Measure or model CPU and memory too."""
    gpus_required: bool = True
    """Stop where there is no GPU; otherwise go on with the host alone."""
    dcgm_url: str = ""
    """Read a DCGM exporter's /metrics instead of the driver."""
    run_label: str = "pod"
    """Label of the exporter's series that names the run."""
    linger_s: float | None = None
    """Stop when no run has been active for so long; None: go on until told to stop."""

    @property
    def patience_s(self) -> float:
        """How long a call to the driver may take before it counts as hanging."""
        return max(0.2, self.period_s)

    @classmethod
    def from_json(cls, text: str) -> Config:
        return cls(**json.loads(text))

    def as_json(self) -> str:
        return json.dumps(asdict(self))
