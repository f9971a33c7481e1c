"""The collector on a DCGM exporter: its GPUs are readings, its pods are runs."""

from __future__ import annotations

from flows.ingest.gpu import ingest_gpu
from flows.ingest.runs import ingest_runs
from flows.settings import Settings
from tests.exporter_server import GPU0, GPU1, Exporter, Served, serving
from tests.node.conftest import Node


def test_the_collector_reads_an_exporter(node: Node, project: Settings) -> None:
    exporter = Exporter()
    with serving(exporter) as server:
        process = node.collect(dcgm_url=f"{server.url}/metrics", period_s=0.1)
        node.more(process)
        exporter.pods = {GPU1: "train-1"}
        node.more(process)
        assert [r["ended_by"] for r in node.records()] == ["pod", ""]
        stderr = node.stop(process)
    assert stderr == ""
    readings = node.readings()
    assert readings["gpu_uuid"].unique().sort().to_list() == [GPU0, GPU1]
    assert readings["power_source"].unique().to_list() == ["unknown"]
    assert readings["energy_mj"].null_count() == 0
    [meta] = node.meta("collector")
    assert meta["gpus"][0]["unsupported"]["power_limit_mw"] == "not exported"
    first, second = node.records()
    assert (first["run_id"], second["run_id"]) == ("k8s-ml-train-0", "k8s-ml-train-1")
    assert [h["gpu_uuid"] for h in first["gpus"]] == [GPU0]
    assert [o.verdict for o in ingest_gpu(project, node.segments())] == ["loaded"]
    assert [o.verdict for o in ingest_runs(project, [node.spool.runs])] == ["loaded"] * 2


def test_an_exporter_that_goes_away_is_an_event(node: Node) -> None:
    server = Served(Exporter())
    process = node.collect(dcgm_url=f"{server.url}/metrics", period_s=0.1)
    server.stop()
    node.until(lambda: "exporter" in (process.stderr.readline() if process.stderr else ""))
    stderr = node.stop(process)
    assert node.events() == ["started", "exporter_lost", "stopped"]
    assert process.returncode == 0, stderr
