"""A Prefect server, quiet, on loopback, gone when its parent is gone: for one flow run, or for schedules.

Run as `python -m flows.orchestration.server_process PORT PARENT_PID [lasting]` by `flows.orchestration.server`.
"""

from __future__ import annotations

import os
import sys
import threading
import time


def main(port: int, parent: int, *, lasting: bool) -> None:
    import uvicorn
    from prefect.server.api.server import create_app

    server = uvicorn.Server(
        # One that lasts has a scheduler, automations and events.
        uvicorn.Config(
            create_app(ephemeral=not lasting), host="127.0.0.1", port=port, log_level="error"
        )
    )

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        server.should_exit = True

    threading.Thread(target=watch, daemon=True).start()
    server.run()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), lasting="lasting" in sys.argv[3:])
