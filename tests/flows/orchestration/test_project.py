"""A service runs flows of its own project, and sends secrets where its operator lets it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from flows.errors import SettingsError, UsageError
from flows.orchestration.project import SERVED, describe_writers, load_project, serve_only
from flows.settings import GridApiInput, PrometheusInput, Settings
from flows.sources.gpu import prometheus
from flows.sources.grid.providers.base import read_secret
from flows.sources.grid.providers.registry import load_provider
from flows.sources.secret_hosts import SECRET_HOSTS
from tests.conftest import make_project, wattledger


def test_a_service_runs_flows_of_its_own_project_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = make_project(tmp_path / "own"), make_project(tmp_path / "other")
    monkeypatch.setenv(SERVED, "")  # Put back at the end of the test.
    serve_only(own)
    assert load_project(str(own.root)).root == own.root
    (tmp_path / "link").symlink_to(own.root)
    assert load_project(str(tmp_path / "link")).root.resolve() == own.root
    for elsewhere in (other.root, tmp_path, own.root / "..", own.root / "no such folder"):
        with pytest.raises(UsageError, match="started for another project"):
            load_project(str(elsewhere))


def test_settings_that_everybody_may_change_are_warned_of(project: Settings) -> None:
    assert describe_writers(project) == ""
    (project.root / "wattledger.toml").chmod(0o666)
    assert "everybody on this machine may change" in describe_writers(project)


def read_block(name: str) -> str:
    return f"secret of {name}"


@pytest.mark.parametrize("kind", ["token_env", "token_block"])
def test_secrets_of_grid_providers_go_to_listed_hosts_only(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "a secret")
    provider = load_provider("electricity-maps")

    def read(url: str) -> str:
        source = GridApiInput.model_validate(
            {"provider": "electricity-maps", "zone": "DE", "url": url, kind: "TOKEN"}
        )
        return read_secret(source, provider, read_block)

    assert read("https://evil.example")  # Without a list, wattledger.toml is the list.
    monkeypatch.setenv(SECRET_HOSTS, "proxy.example, other.example")
    for url in ("", "https://PROXY.example:8443/base", provider.url):
        assert read(url)
    for url in (
        "https://evil.example",
        "https://proxy.example@evil.example",
        "https://evil.example/proxy.example",
        "https://proxy.example.evil.example",
        provider.url.replace("https:", "http:"),
    ):
        with pytest.raises(SettingsError, match=SECRET_HOSTS):
            read(url)
    monkeypatch.setenv(SECRET_HOSTS, "")
    assert read("")
    with pytest.raises(SettingsError, match=SECRET_HOSTS):
        read("https://proxy.example")


def test_tokens_for_prometheus_go_to_listed_hosts_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "a secret")
    monkeypatch.setenv(SECRET_HOSTS, "prometheus.example")
    listed = PrometheusInput(url="http://prometheus.example:9090", token_env="TOKEN")
    with prometheus._open_client(listed) as client:
        assert client.headers["Authorization"] == "Bearer a secret"
    with pytest.raises(SettingsError, match=r"evil\.example"):
        prometheus._open_client(PrometheusInput(url="http://evil.example", token_env="TOKEN"))
    # Without a secret there is nothing to keep.
    prometheus._open_client(PrometheusInput(url="http://evil.example")).close()


def test_a_port_that_is_taken_ends_in_a_sentence(project: Settings) -> None:
    """Nobody can answer in place of the service's own server and be sent its password."""
    toml = project.root / "wattledger.toml"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        toml.write_text(f"{toml.read_text()}\n[schedule]\nport = {port}\n")
        done = wattledger("serve", "-p", project.root)
    assert done.returncode == 6, done.stderr
    assert f"port {port} cannot be used" in done.stderr
    assert "Traceback" not in done.stderr
