"""The process that measures CPU and memory (`wattledger.meters.host`), and the thread that listens to it."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable
from typing import Any

from wattledger.collect.sink import Sink
from wattledger.process import child_environment, module_command

_PERIOD_S = 1.0
"""CPU and memory are read so often, and stored once per flush."""


class HostMeter:
    """Runs from its making until `stop`."""

    def __init__(self, sink: Sink, keep: Callable[[dict[str, Any]], None]) -> None:
        """Start measuring.

        Args:
            sink: takes the events.
            keep: takes an interval, as `wattledger.meters.host` prints it.
        """
        self._sink, self._keep = sink, keep
        self._process = subprocess.Popen(
            module_command("wattledger.meters.host", str(_PERIOD_S)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(),
            start_new_session=True,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        """Take what the process prints, line by line, until it ends."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            if "warning" in message:
                self._sink.note("host_meter", None, message["warning"])
            else:
                self._keep(message)
        if not self._sink.stopping:
            self._sink.note("host_meter", None, f"it ended with exit code {self._process.wait()}")

    def stop(self) -> None:
        """Let it measure once more, and end it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._listener.join(timeout=2)
        self._process.kill()
