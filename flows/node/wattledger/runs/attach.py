"""The helper beside a Python program that calls `wattledger.track`: `python -m wattledger.runs.attach`.

It records the run and its end, so that the program imports nothing and waits for nothing. Input: a
line of JSON to begin, another to end; an end of input without one means that the program is gone.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from dataclasses import fields

from wattledger.process import started_at
from wattledger.runs.records import BEAT_S
from wattledger.runs.session import Options, Session, to_stderr, with_project


def main() -> int:
    begin = json.loads(sys.stdin.readline())
    pid = int(begin["pid"])
    born = started_at(pid)
    given = {f.name: begin[f.name] for f in fields(Options) if f.name in begin}
    session = Session(with_project(Options(**given), os.environ), to_stderr)
    run_id = session.begin(begin["program"], os.environ, pid)
    print(json.dumps({"run_id": run_id}), flush=True)
    line = ""
    beat = time.monotonic()
    while started_at(pid) == born:
        if time.monotonic() - beat > BEAT_S:
            beat = time.monotonic()
            session.beat()
        # Children of the program may hold its end of the pipe, so look after the program itself.
        if select.select([sys.stdin], [], [], 1.0)[0]:
            line = sys.stdin.readline()
            break
    said = json.loads(line) if line.strip() else {}
    summary = session.end(said.get("exit_code"), by="exit" if said else "lost")
    print(json.dumps(summary or {}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
