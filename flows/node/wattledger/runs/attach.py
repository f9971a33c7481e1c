"""The helper beside a Python program that calls `wattledger.track`: `python -m wattledger.runs.attach`.

It records the run and its end, so that the program imports nothing and waits for nothing. Its input
is a line of JSON to begin and another to end. Where the second is missing, the program is gone.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from dataclasses import fields
from typing import Any

from wattledger.process import print_to_stderr, start_token
from wattledger.runs.active import BEAT_S
from wattledger.runs.session import Options, Session, find_project


def main() -> int:
    begin = json.loads(sys.stdin.readline())
    pid = int(begin["pid"])
    pid_started = start_token(pid)
    options = Options(**{f.name: begin[f.name] for f in fields(Options) if f.name in begin})
    session = Session(find_project(options, os.environ), print_to_stderr)
    run_id = session.begin(begin["program"], os.environ, pid)
    print(json.dumps({"run_id": run_id}), flush=True)
    end = _wait_for_end(session, pid, pid_started)
    summary = session.end(end.get("exit_code"), by="exit" if end else "lost")
    print(json.dumps(summary or {}), flush=True)
    return 0


def _wait_for_end(session: Session, pid: int, pid_started: str | None) -> dict[str, Any]:
    """The program's last message; empty if the program is gone without one."""
    beat_at = time.monotonic()
    while start_token(pid) == pid_started:
        if time.monotonic() - beat_at > BEAT_S:
            beat_at = time.monotonic()
            session.beat()
        # Children of the program may hold its end of the pipe, so look after the program itself.
        if select.select([sys.stdin], [], [], 1.0)[0]:
            line = sys.stdin.readline()
            return json.loads(line) if line.strip() else {}
    return {}


if __name__ == "__main__":
    sys.exit(main())
