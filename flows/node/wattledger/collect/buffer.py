"""What was read and is not stored yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from wattledger.spool.journal import Event, HostEnergy, Reading


@dataclass(frozen=True)
class Batch:
    """What one flush stores."""

    readings: list[Reading]
    events: list[Event]
    host: list[HostEnergy]


class Buffer:
    """Queues: other threads append at one end while the main thread takes from the other."""

    def __init__(self) -> None:
        self.readings: deque[Reading] = deque()
        self.events: deque[Event] = deque()
        self.host: deque[HostEnergy] = deque()

    def take(self) -> Batch:
        """Take out all that is there now; energy of the host is summed."""
        return Batch(_drain(self.readings), _drain(self.events), _sum_energy(_drain(self.host)))

    def put_back(self, batch: Batch) -> None:
        """Put back what could not be stored."""
        self.readings.extendleft(reversed(batch.readings))
        self.events.extendleft(reversed(batch.events))
        self.host.extendleft(reversed(batch.host))

    def thin(self, limit: int) -> Iterator[int]:
        """Keep memory bounded: leave out every second reading of each GPU until `limit` is kept.

        Where a GPU has an energy counter no energy is lost by this, only detail. Of events and
        energy of the host, the oldest go.

        Yields:
            How many readings were left out, each time.
        """
        while len(self.readings) > limit:
            waiting = _drain(self.readings)
            kept = _every_second(waiting)
            self.readings.extendleft(reversed(kept))
            yield len(waiting) - len(kept)
        for queue in (self.events, self.host):
            while len(queue) > limit:
                queue.popleft()


def _drain(queue: deque[Any]) -> list[Any]:
    """All that is in the queue now, taken out of it."""
    return [queue.popleft() for _ in range(len(queue))]


def _every_second(readings: list[Reading]) -> list[Reading]:
    """The first, third, fifth … reading of each GPU."""
    counts: dict[int, int] = {}
    kept = []
    for reading in readings:
        number = counts.get(id(reading[0]), 0)
        counts[id(reading[0])] = number + 1
        if number % 2 == 0:
            kept.append(reading)
    return kept


def _sum_energy(intervals: list[HostEnergy]) -> list[HostEnergy]:
    """One interval per component and method: its energies summed, up to its last moment."""
    sums: dict[tuple[str, bool, str], HostEnergy] = {}
    for at, span, component, energy, modelled, method in intervals:
        key = (component, modelled, method)
        _, span_before, _, energy_before, _, _ = sums.get(
            key, (0, 0, component, 0, modelled, method)
        )
        sums[key] = (at, span_before + span, component, energy_before + energy, modelled, method)
    return list(sums.values())
