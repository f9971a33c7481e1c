"""A real HTTP server on loopback whose answers a test chooses, and the answers of a DCGM exporter."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from wattledger.meters import dcgm

GPU0, GPU1 = "GPU-aaaa", "GPU-bbbb"


class Served:
    """A server on loopback whose answer the test chooses: (status, content type, text)."""

    def __init__(self, answer: Callable[[str, dict[str, str]], tuple[int, str, str]]) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                served.requests.append((self.path, dict(self.headers)))
                status, kind, text = answer(self.path, dict(self.headers))
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def serving(answer: Callable[[str, dict[str, str]], tuple[int, str, str]]) -> Iterator[Served]:
    server = Served(answer)
    try:
        yield server
    finally:
        server.stop()


class Exporter:
    """The answer of a node's DCGM exporter: two GPUs at 300 and 400 W, and the pods that hold them."""

    def __init__(self) -> None:
        self.pods: dict[str, str] = {GPU0: "train-0"}
        self.began = time.monotonic()

    def __call__(self, path: str, headers: dict[str, str]) -> tuple[int, str, str]:
        lines = [
            f"# HELP {dcgm.POWER} Power draw (in W).",
            f"# TYPE {dcgm.POWER} gauge",
            *self._metric(dcgm.POWER, lambda watts: f"{watts}.5"),
            f"# TYPE {dcgm.ENERGY} counter",
            *self._metric(
                dcgm.ENERGY, lambda watts: str(int((time.monotonic() - self.began) * watts * 1000))
            ),
            "# TYPE DCGM_FI_DEV_GPU_TEMP gauge",
            *self._metric("DCGM_FI_DEV_GPU_TEMP", lambda watts: "55"),
        ]
        return 200, "text/plain", "\n".join(lines) + "\n"

    def _metric(self, name: str, value: Callable[[int], str]) -> list[str]:
        lines = []
        for index, (uuid, watts) in enumerate(((GPU0, 300), (GPU1, 400))):
            labels = (
                f'gpu="{index}",UUID="{uuid}",device="nvidia{index}",'
                'modelName="NVIDIA H100 80GB HBM3",Hostname="node01"'
            )
            pod = self.pods.get(uuid)
            if pod:
                labels += f',namespace="ml",pod="{pod}",container="main"'
            lines.append(f"{name}{{{labels}}} {value(watts)}")
        return lines
