"""What a reading of a GPU holds, and whose it is. Meters fill it, spool and runs keep it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

QUANTITIES = (
    "power_mw",
    "energy_mj",
    "power_average_mw",
    "util_pct",
    "mem_used_mib",
    "temp_c",
    "mem_temp_c",
    "sm_clock_mhz",
    "power_limit_mw",
    "throttle_reasons",
)
"""What one reading holds, in order; each is an integer or None."""

Values = tuple[int | None, ...]
"""One reading, in the order of QUANTITIES."""


@dataclass(frozen=True)
class Instance:
    """A MIG instance: a share of its parent, whose energy is metered once."""

    uuid: str
    share_ppm: int

    def as_json(self) -> dict[str, Any]:
        return {"uuid": self.uuid, "share_ppm": self.share_ppm}


@dataclass
class Gpu:
    """A physical GPU: its identity, and which quantities its meter can answer."""

    uuid: str
    index: int
    model: str
    instances: tuple[Instance, ...] = ()
    power_source: str = "unknown"
    unsupported: dict[str, str] = field(default_factory=dict)
    """Quantity -> why it is null in every reading."""

    def as_json(self) -> dict[str, Any]:
        """Identity and abilities, as a segment's metadata carries them."""
        return {
            "uuid": self.uuid,
            "index": self.index,
            "model": self.model,
            "power_source": self.power_source,
            "unsupported": dict(sorted(self.unsupported.items())),
            "instances": [instance.as_json() for instance in self.instances],
        }


@dataclass(frozen=True)
class Held:
    """A GPU that a run holds, or the share of it that a MIG instance is."""

    gpu_uuid: str
    gpu_index: int | None
    model: str
    share_ppm: int = 1_000_000
    instance: str = ""
