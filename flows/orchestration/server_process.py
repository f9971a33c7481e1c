"""A quiet Prefect server on loopback that ends with its parent: for one flow run, or for schedules.

Run as `python -m flows.orchestration.server_process SOCKET PARENT_PID [lasting]` by `flows.orchestration.server`.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time


def run_server(socket_no: int, parent: int, *, lasting: bool) -> None:
    """Serve on an inherited socket until the process `parent` is gone.

    Args:
        socket_no: File descriptor of a socket that listens already.
        parent: Process id.
        lasting: With a scheduler, automations and events.
    """
    import uvicorn
    from prefect.server.api.server import create_app

    server = uvicorn.Server(uvicorn.Config(create_app(ephemeral=not lasting), log_level="error"))

    def stop_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        server.should_exit = True

    threading.Thread(target=stop_with_parent, daemon=True).start()
    server.run(sockets=[socket.socket(fileno=socket_no)])


if __name__ == "__main__":
    run_server(int(sys.argv[1]), int(sys.argv[2]), lasting="lasting" in sys.argv[3:])
