"""DCGM exporters, scraped and through Prometheus: real HTTP servers, and the real Prometheus."""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse
from urllib.request import urlopen

import polars as pl
import pytest

from flows import settings as settings_module
from flows.accounting.compute import compute
from flows.errors import SettingsError, SourceError
from flows.ingest.fetch_prometheus import fetch_prometheus
from flows.settings import PrometheusInput, Settings
from flows.sources.gpu import prometheus
from tests.conftest import TOML, ask, make_project, wattledger
from tests.exporter_server import GPU0, GPU1, Exporter, serving
from tests.node.conftest import Node
from wattledger.meters import dcgm


class Prometheus:
    """The part of Prometheus's API that is used, on samples that the test gives.

    samples: labels -> [(second, value)]; a value is repeated for `stale_s` after its time.
    """

    def __init__(self, stale_s: float = 300) -> None:
        self.series: list[tuple[dict[str, str], list[tuple[float, float]]]] = []
        self.stale_s = stale_s

    def add(self, name: str, uuid: str, samples: list[tuple[float, float]], **labels: str) -> None:
        common = {"__name__": name, "UUID": uuid, "gpu": "0", "Hostname": "node01"}
        self.series.append(({**common, "modelName": "NVIDIA H100", **labels}, samples))

    def __call__(self, path: str, headers: dict[str, str]) -> tuple[int, str, str]:
        params = {k: v[0] for k, v in parse_qs(urlparse(path).query).items()}
        query = params["query"]
        of_time = query.startswith("timestamp(")
        name = query.removeprefix("timestamp(").split("{")[0].rstrip(")")
        start, end, step = (float(params[k]) for k in ("start", "end", "step"))
        count = int((end - start) / step) + 1
        if count > 11_000:
            text = json.dumps({"status": "error", "error": "exceeded maximum resolution"})
            return 400, "application/json", text
        result = []
        for labels, samples in self.series:
            if labels["__name__"] != name:
                continue
            values = []
            for i in range(count):
                moment = start + i * step
                past = [s for s in samples if s[0] <= moment < s[0] + self.stale_s]
                if past:
                    at, value = past[-1]
                    values.append([moment, str(at if of_time else value)])
            kept = {k: v for k, v in labels.items() if k != "__name__" or not of_time}
            if values:
                result.append({"metric": kept, "values": values})
        text = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}})
        return 200, "application/json", text


T = datetime(2024, 5, 1, 12, tzinfo=UTC)
T_S = T.timestamp()


def steady(
    watts: float, seconds: float, every: float = 15, begin: float = 0.3
) -> tuple[list[Any], list[Any]]:
    moments = [T_S + begin + i * every for i in range(int(seconds / every))]
    return [(t, watts) for t in moments], [(t, round((t - T_S) * watts * 1000)) for t in moments]


def source(url: str, **settings: Any) -> PrometheusInput:
    return PrometheusInput(url=url, **settings)


def test_readings_count_once_at_the_time_they_were_taken(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p", "[zones.XX]\nfallback_intensity_g_per_kwh = 1\n")
    served = Prometheus()
    power, energy = steady(300, 600)
    served.add(dcgm.POWER, GPU0, power, pod="train", namespace="ml")
    served.add(dcgm.ENERGY, GPU0, energy, pod="train", namespace="ml")
    with serving(served) as server:
        prometheus_input = source(server.url, step_s=5)
        first = fetch_prometheus(project, prometheus_input, T, T + timedelta(minutes=20))
        again = fetch_prometheus(project, prometheus_input, T, T + timedelta(minutes=20))
        # Another span that overlaps: what is stored already is left out.
        more = fetch_prometheus(project, prometheus_input, T, T + timedelta(minutes=5))
    assert [o.verdict for o in first] == ["loaded", "loaded"]
    assert {o.verdict for o in again} == {"known"}
    assert (more[0].rows_loaded, more[0].rows_duplicate) == (0, 20)
    [facts] = ask(
        project,
        "SELECT count(*) AS n, count(power_mw) AS power, count(energy_mj) AS energy, "
        "min(ts) AS first FROM gpu_reading",
    )
    # Every sample once, though each was repeated for five minutes.
    assert (facts["n"], facts["power"], facts["energy"]) == (40, 40, 40)
    assert facts["first"] == T + timedelta(seconds=0.3)
    compute(project)
    [run] = ask(project, "FROM run_summary")
    assert run["run_id"] == "k8s-ml-train"
    # 585 s measured, and nothing is claimed of the time after the last sample.
    assert run["energy_kwh"] == pytest.approx(300 * 585 / 3.6e6, rel=1e-6)
    assert run["filled_kwh"] == 0


def test_the_next_fetch_goes_on_where_the_last_ended(project: Settings) -> None:
    served = Prometheus()
    served.add(dcgm.POWER, GPU0, steady(300, 1200)[0])
    with serving(served) as server:
        prometheus_input = source(server.url)
        fetch_prometheus(project, prometheus_input, T, T + timedelta(minutes=10))
        server.requests.clear()
        fetch_prometheus(project, prometheus_input, last=T + timedelta(minutes=20))
        start = float(parse_qs(urlparse(server.requests[0][0]).query)["start"][0])
    assert start == pytest.approx(T_S + 585.3)
    assert ask(project, "SELECT count(*) AS n FROM gpu_reading") == [{"n": 80}]


def test_a_long_span_is_asked_in_pieces(project: Settings) -> None:
    served = Prometheus()
    power, _ = steady(300, 36_000, every=600)
    served.add(dcgm.POWER, GPU0, power)
    with serving(served) as server:
        fetch_prometheus(project, source(server.url, step_s=1), T, T + timedelta(hours=9))
    assert ask(project, "SELECT count(*) AS n FROM gpu_reading") == [{"n": 54}]


def test_pods_hold_the_gpu_in_turn_and_series_of_one_gpu_are_one(project: Settings) -> None:
    served = Prometheus(stale_s=20)
    power, _ = steady(300, 600)
    served.add(dcgm.POWER, GPU0, power[:20], pod="a", namespace="ml")
    served.add(dcgm.POWER, GPU0, power[20:30])
    served.add(dcgm.POWER, GPU0, power[30:], pod="b", namespace="ml")
    with serving(served) as server:
        fetch_prometheus(project, source(server.url), T, T + timedelta(minutes=10))
    held = ask(
        project,
        "SELECT run_id, epoch(to_ts) - epoch(from_ts) AS s FROM run_allocation ORDER BY run_id",
    )
    assert [(h["run_id"], h["s"]) for h in held] == [("k8s-ml-a", 300), ("k8s-ml-b", 135)]
    assert ask(project, "SELECT count(*) AS n FROM gpu_reading") == [{"n": 40}]


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((401, "application/json", '{"status": "error", "error": "no token"}'), "no token"),
        ((502, "text/html", "<html>Bad gateway</html>"), "not JSON (HTTP 502)"),
        ((200, "application/json", '{"status": "success", "da'), "not JSON (HTTP 200)"),
        ((200, "application/json", "[]"), "not an object"),
        ((200, "application/json", '{"status": "success"}'), "not that of a range query"),
        (
            (200, "application/json", '{"status": "success", "data": {"result": [{"metric": 1}]}}'),
            "not that of a range query",
        ),
        ((200, "application/json", "[" * 100_000), "cannot be read"),
    ],
)
def test_a_source_that_answers_nonsense_is_named(
    project: Settings, answer: tuple[int, str, str], sentence: str
) -> None:
    with serving(lambda path, headers: answer) as server, pytest.raises(SourceError) as error:
        fetch_prometheus(project, source(server.url), T, T + timedelta(minutes=1))
    assert sentence in str(error.value)
    assert server.url in str(error.value)


def add_honor(served: Prometheus) -> None:
    """Two GPUs without honorLabels: the first is held for half of an hour, and both have the exporter's own pod."""
    own = {"pod": "gpu-metrics-x7f2k", "namespace": "monitoring", "container": "exporter"}
    held = {"exported_pod": "train-0", "exported_namespace": "ml", "exported_container": "main"}
    for uuid, parts in ((GPU0, [(0, 1800, held), (1815, 3600, {})]), (GPU1, [(0, 3600, {})])):
        for begin, end, labels in parts:
            moments = [T_S + s for s in range(begin, end + 1, 15)]
            watts = 400.0 if labels else 70.0
            served.add(dcgm.POWER, uuid, [(t, watts) for t in moments], **own, **labels)


def test_the_exporters_own_pod_is_no_run(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p", "[zones.XX]\nfallback_intensity_g_per_kwh = 1\n")
    served = Prometheus(stale_s=15)
    add_honor(served)
    with serving(served) as server:
        outcomes = fetch_prometheus(project, source(server.url), T, T + timedelta(hours=1))
    assert [o.verdict for o in outcomes] == ["loaded", "loaded"]
    compute(project)
    [run] = ask(project, "SELECT run_id, energy_kwh FROM run_summary")
    assert run["run_id"] == "k8s-ml-train-0"
    assert run["energy_kwh"] == pytest.approx(0.2, rel=0.01)
    [whole] = ask(project, "SELECT sum(power_integral_mj) / 3.6e9 AS kwh FROM gpu_slot")
    assert whole["kwh"] == pytest.approx(0.305, rel=0.005)


BLANKS = [
    *(2147483632.0 + kind for kind in range(4)),
    *(140737488355328.0 + kind for kind in range(4)),
    *(9223372036854775792 + kind for kind in range(4)),
    4294967295,
    4294967.295,
    -1,
]


@pytest.mark.parametrize("blank", BLANKS)
def test_a_blank_is_left_out_and_counted(blank: float, tmp_path: Path) -> None:
    served = Prometheus(stale_s=20)
    power, energy = steady(400, 600)
    power[20] = (power[20][0], blank)
    energy[30] = (energy[30][0], blank)
    served.add(dcgm.POWER, GPU0, power)
    served.add(dcgm.ENERGY, GPU0, energy)
    with serving(served) as server:
        fetched = prometheus.fetch(source(server.url), T, T + timedelta(minutes=10))
    assert fetched.left_out == {"samples that stand for a missing value": 2}
    readings = fetched.readings
    assert (readings["power_mw"].null_count(), readings["energy_mj"].null_count()) == (1, 1)
    assert readings["power_mw"].max() == 400_000
    assert readings["energy_mj"].drop_nulls().is_sorted()


def test_the_limit_comes_along(project: Settings) -> None:
    served = Prometheus(stale_s=20)
    power, _ = steady(400, 60)
    served.add(dcgm.POWER, GPU0, power)
    served.add(dcgm.LIMIT, GPU0, [(t, 650.0) for t, _ in power])
    served.add(dcgm.LIMIT, GPU1, [(t, 650.0) for t, _ in power])
    with serving(served) as server:
        fetch_prometheus(project, source(server.url), T, T + timedelta(minutes=1))
    assert ask(project, "SELECT gpu_uuid, limit_from, board_limit_mw FROM segment_profile") == [
        {"gpu_uuid": GPU0, "limit_from": "readings", "board_limit_mw": 650_000}
    ]


def test_one_bad_sample_is_not_the_end_of_the_fetch(project: Settings) -> None:
    served = Prometheus(stale_s=20)
    power, _ = steady(400, 600)
    for place, bad in ((3, "NaN"), (5, "+Inf"), (7, "-50"), (9, "oops")):
        power[place] = (power[place][0], bad)
    served.add(dcgm.POWER, GPU0, power)
    # Another exporter says something else of one moment: neither is believed.
    served.add(dcgm.POWER, GPU0, [(power[11][0], 333.0)], job="other")
    served.add(dcgm.POWER, "", power[:2])
    with serving(served) as server:
        [outcome] = fetch_prometheus(project, source(server.url), T, T + timedelta(minutes=10))
    assert outcome.verdict == "loaded"
    assert outcome.skipped == {
        "samples that are no number": 3,
        "samples below zero": 1,
        "samples of one GPU and time that contradict each other": 2,
        "samples that name no GPU": 2,
    }
    assert outcome.rows_read == outcome.rows_loaded + outcome.rows_skipped
    assert ask(project, "SELECT count(*) AS n FROM gpu_reading") == [{"n": 35}]


@pytest.mark.parametrize(
    ("labels", "pod"),
    [
        ({"pod": "train", "namespace": "ml"}, ("ml", "train")),
        ({"pod": "nvidia-dcgm-exporter-x", "namespace": "gpu-operator"}, None),
        ({"pod": "metrics-x", "container": "exporter"}, None),
        ({"pod": "dcgmproftester2", "container": "dcgmproftester2"}, ("", "dcgmproftester2")),
        (
            {"exported_pod": "train", "exported_namespace": "ml", "pod": "x", "namespace": "o"},
            ("ml", "train"),
        ),
        ({"exported_pod": "train", "pod": "x", "namespace": "ml"}, ("ml", "train")),
        # A federated Prometheus: its own pod, and what the inner one has renamed already.
        (
            {
                "pod": "prometheus-0",
                "exported_pod": "train",
                "exported_namespace": "ml",
                "exported_exported_pod": "dcgm-exporter-abc",
            },
            ("ml", "train"),
        ),
        ({"pod": "prometheus-0", "exported_pod": "dcgm-exporter-abc"}, None),
        ({"pod_name": "train", "pod_namespace": "ml"}, ("ml", "train")),
        ({"pod": "", "namespace": ""}, None),
    ],
)
def test_pods_are_what_the_labels_mean(labels: dict[str, str], pod: tuple[str, str] | None) -> None:
    assert dcgm.identify_pod(labels, "pod") == pod


@pytest.mark.parametrize(
    ("labels", "host"),
    [
        ({"Hostname": "node01", "instance": "10.0.0.9:9400"}, "node01"),
        ({"Hostname": "dcgm-exporter-abc", "instance": "10.0.0.9:9400"}, "10.0.0.9"),
        ({"Hostname": "dcgm-exporter-abc", "node": "node01", "instance": "10.0.0.9:1"}, "node01"),
        ({"Hostname": "metrics-x", "pod": "metrics-x", "kubernetes_node": "node01"}, "node01"),
        ({"instance": "[fd00::9]:9400"}, "fd00::9"),
    ],
)
def test_the_host_is_the_node_and_not_the_exporters_pod(labels: dict[str, str], host: str) -> None:
    identity = dcgm.identify_gpu({"UUID": "GPU-x", "gpu": "0", **labels})
    assert identity is not None
    assert identity[3] == host


@pytest.mark.parametrize(
    ("model", "profile", "share"),
    [
        ("NVIDIA A100-SXM4-80GB", "1g.10gb", 142_857),
        ("NVIDIA A100-SXM4-80GB", "1c.3g.40gb", 142_857),
        ("NVIDIA H100 80GB HBM3", "1g.10gb+me", 142_857),
        ("NVIDIA A30", "2g.12gb", 500_000),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "1g.24gb", 250_000),
        ("NVIDIA A100-SXM4-80GB", "", None),
        ("NVIDIA A100-SXM4-80GB", "large", None),
    ],
)
def test_a_profile_says_the_share_or_nobody_does(
    model: str, profile: str, share: int | None
) -> None:
    held = dcgm.make_held({"GPU_I_ID": "3", "GPU_I_PROFILE": profile}, "GPU-x", 0, model)
    assert (held.share_ppm if held else None) == share


def test_a_source_that_is_not_there_is_named_without_its_password(project: Settings) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://me:hunter2@127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(SourceError) as error:
        fetch_prometheus(project, source(url), T, T + timedelta(minutes=1))
    assert "127.0.0.1" in str(error.value)
    assert "hunter2" not in str(error.value)


def test_a_token_goes_along_and_nowhere_else(
    project: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = Prometheus()
    served.add(dcgm.POWER, GPU0, steady(300, 60)[0])
    prometheus_input = {"token_env": "PROM_TOKEN"}
    with serving(served) as server:
        with pytest.raises(SettingsError, match="PROM_TOKEN is not set"):
            fetch_prometheus(
                project, source(server.url, **prometheus_input), T, T + timedelta(minutes=1)
            )
        monkeypatch.setenv("PROM_TOKEN", "s3cr3t-value")
        fetch_prometheus(
            project, source(server.url, **prometheus_input), T, T + timedelta(minutes=1)
        )
        assert server.requests[-1][1]["Authorization"] == "Bearer s3cr3t-value"
    for path in project.root.rglob("*"):
        assert not path.is_file() or b"s3cr3t-value" not in path.read_bytes()


def test_the_pipeline_goes_on_when_a_source_is_away(
    project: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.orchestration import pipeline

    # The task's own function: retries and logs are Prefect's.
    monkeypatch.setattr(pipeline, "fetch_readings", pipeline.fetch_readings.fn)
    prometheus_input = PrometheusInput(name="away", url="http://127.0.0.1:9")
    [outcome] = pipeline._fetch_prometheus_input(str(project.root), prometheus_input, 0.0)
    assert (outcome.path, outcome.verdict) == ("away", "unreachable")
    assert "127.0.0.1:9" in outcome.reason
    assert pipeline.Report(gpu=[outcome]).refused == [outcome]


@pytest.mark.service
def test_the_real_prometheus(tmp_path: Path) -> None:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with serving(Exporter()) as server:
        config = tmp_path / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n"
            "- job_name: dcgm\n  honor_labels: true\n  static_configs:\n"
            f'  - targets: ["127.0.0.1:{server.port}"]\n'
        )
        process = subprocess.Popen(
            [
                program,
                f"--config.file={config}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            Node.until(lambda: _samples(url) >= 6, 60)
            end = datetime.now(UTC)
            prometheus_input = source(url, step_s=1)
            fetched = prometheus.fetch(prometheus_input, end - timedelta(seconds=60), end)
            project = tmp_path / "p"
            extra = f'[[input.prometheus]]\nurl = "{url}"\nstep_s = 1\nlookback_h = 0.02\n'
            project.mkdir()
            (project / "wattledger.toml").write_text(extra + TOML)
            settings = settings_module.load(project)
            outcomes = fetch_prometheus(settings, settings.input.prometheus[0], last=end)
        finally:
            process.terminate()
            process.wait(timeout=20)
    one = fetched.readings.filter(pl.col("gpu_uuid") == GPU1)
    assert one.height >= 5
    assert one["power_mw"].unique().to_list() == [400_500]
    seconds = (one["ts"][-1] - one["ts"][0]).total_seconds()
    rise = one["energy_mj"][-1] - one["energy_mj"][0]
    assert rise / seconds == pytest.approx(400_000, rel=0.05)
    assert [(h.name, h.held.gpu_uuid) for h in fetched.holds] == [("train-0", GPU0)]
    assert [o.verdict for o in outcomes] == ["loaded", "loaded"]


def test_the_command_names_what_is_missing(project: Settings) -> None:
    done = wattledger("ingest", "prometheus", "other", "--project", project.root)
    assert done.returncode == 1
    assert "no [[input.prometheus]] named 'other'" in done.stderr


def _samples(url: str) -> int:
    try:
        query = f"{url}/api/v1/query?query=count_over_time({dcgm.POWER}[1m])"
        with urlopen(query, timeout=2) as answer:
            found = json.load(answer)["data"]["result"]
        return min((int(series["value"][1]) for series in found), default=0)
    except (OSError, ValueError):
        return 0


JUNK = [
    None,
    "NaN",
    "-1",
    "1e999",
    "",
    [],
    {},
    "x" * 5000,
    2**63,
    "9223372036854775794",
    True,
    "0",
    "-5",
]


def _mutate(value: Any, chance: random.Random) -> Any:
    """An answer with some of its parts replaced."""
    if chance.random() < 0.004:
        return chance.choice(JUNK)
    if isinstance(value, dict):
        return {key: _mutate(part, chance) for key, part in value.items()}
    if isinstance(value, list):
        return [_mutate(part, chance) for part in value]
    return value


def test_mutated_answers_give_readings_or_a_sentence() -> None:
    """Of 60 answers with junk in any place, nothing but good samples or a named refusal comes out."""
    served = Prometheus(stale_s=20)
    power, energy = steady(400, 300)
    served.add(dcgm.POWER, GPU0, power, exported_pod="train", pod="dcgm-exporter-x")
    served.add(dcgm.ENERGY, GPU0, energy, exported_pod="train", pod="dcgm-exporter-x")
    chance = random.Random(18)

    def answer(path: str, headers: dict[str, str]) -> tuple[int, str, str]:
        status, kind, text = served(path, headers)
        return status, kind, json.dumps(_mutate(json.loads(text), chance))

    good = {round(t * 1e6) for t, _ in power}
    fetched, refused = 0, list[str]()
    with serving(answer) as server:
        for _ in range(60):
            try:
                found = prometheus.fetch(source(server.url), T, T + timedelta(minutes=5))
            except SourceError as error:
                refused.append(str(error))
                continue
            fetched += 1
            readings = found.readings
            assert set(readings["ts"].to_physical()) <= good | {0}
            assert readings["power_mw"].drop_nulls().is_in([400_000, 0, 1000]).all()
            assert {hold.name for hold in found.holds} <= {"train"}
    assert fetched > 10
    assert len(refused) > 1
    assert all(server.url in reason for reason in refused)
