"""wattledger.toml: what is refused, and where the message points."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.errors import SettingsError
from flows.factors import read_factors
from flows.project import create_project
from flows.settings import Settings, load, parse, quote_text


@pytest.mark.parametrize("name", ["root", "wait_s", "unknown"])
def test_only_tables_of_the_file_can_be_set_in_it(name: str) -> None:
    """The project folder and how long to wait are not the file's to say."""
    with pytest.raises(SettingsError, match=f"setting {name}: Extra inputs are not permitted"):
        parse(f"{name} = 1\n", Path("wattledger.toml"))


def test_a_record_gives_the_same_settings_again(tmp_path: Path) -> None:
    (tmp_path / "wattledger.toml").write_text(
        '[[site]]\nname = "main"\nzone = "XX"\npue = { value = 1.2, low = 1.1, high = 1.3 }\n'
    )
    settings = load(tmp_path, wait_s=5)
    assert (settings.root, settings.wait_s) == (tmp_path, 5)
    record = settings.to_record()
    assert not {"root", "wait_s"} & set(record)
    assert Settings.from_record(record).to_record() == record


SITE = '[[site]]\nname = "main"\nzone = "XX"\n'


@pytest.mark.parametrize(
    ("text", "setting", "reason"),
    [
        (SITE + "pue = 1e300", "site.0.pue", "cannot be more than"),
        (SITE + "pue = 12", "site.0.pue", "cannot be more than 10 kWh"),
        (SITE + "pue = nan", "site.0.pue.value", "finite"),
        (SITE + "pue = 0.9", "site.0", "PUE is at least 1"),
        (SITE + "wue_l_per_kwh = inf", "site.0.wue_l_per_kwh.value", "finite"),
        (SITE + "host_overhead_w_per_gpu = 1e6", "site.0.host_overhead_w_per_gpu", "W per GPU"),
        (SITE + "valid_from = 2025-01-01\nvalid_to = 2024-01-01", "site.0", "valid_to"),
        (SITE.replace("main", ""), "site.0.name", "characters that can be printed"),
        (SITE.replace("XX", "X\\u001b[2J"), "site.0.zone", "characters that can be printed"),
        ("[zones.X]\nfallback_intensity_g_per_kwh = 1e5", "zones.X.fallback_", "g/kWh"),
        ('[schedule]\npublish = "nightly"', "schedule.publish", "five fields"),
        ('[schedule]\npublish = "0 0 30 2 *"', "schedule.publish", "come round one day"),
        ('[schedule]\npublish = "* * * * * *"', "schedule.publish", "five fields"),
        ("[schedule]\ningest_min = 1e300", "schedule.ingest_min", "less than or equal"),
        ("[schedule]\nwait_s = -1", "schedule.wait_s", "greater than or equal to 0"),
        ("[schedule]\nport = 70000", "schedule.port", "less than 65536"),
        ("[retention]\nroll_up_after_days = -1", "retention.roll_up_after_days", "greater than 0"),
        ("[retention]\nroll_up_after_days = inf", "retention.roll_up_after_days", "finite"),
        ("[readings]\nmax_gap_s = 1e300", "readings.max_gap_s", "less than or equal"),
        ("[grid]\nsettle_h = 1e300", "grid.settle_h", "less than or equal"),
        ('[[input.runs]]\npaths = []\ntz = "Mars/Base"', "input.runs.0.tz", "unknown time zone"),
        ('[[input.gpu]]\npaths = []\ngpus_per_sweep = -1', "input.gpu.0.gpus_per_sweep", "greater"),
        ('[[input.prometheus]]\nurl = "file:///etc/passwd"', "input.prometheus.0.url", "https://"),
        (
            '[[input.grid_api]]\nprovider = "eia"\nzone = "X"\nurl = "ftp://x"',
            "input.grid_api.0.url",
            "https://",
        ),
        ('[project]\nname = "a/b"', "project.name", "cannot have"),
        ('[[gpu]]\nhost = "h"\nindices = [-1]', "gpu.0.indices.0", "greater than or equal to 0"),
        (f"[project]\ntitle = {'[' * 5000}", "", "not valid TOML"),
    ],
)  # fmt: skip
def test_contents_are_checked_on_loading(text: str, setting: str, reason: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse(text, Path("wattledger.toml"))
    assert reason in str(refused.value)
    assert f"setting {setting}" in str(refused.value) or not setting
    assert "Value error" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        '[factors.pue]\ndefault = 0.5',
        '[factors.pue]\ndefault = 101',
        "[factors.hardware_lifetime_years]\ndefault = { value = 4, low = 0, high = 5 }",
        "[factors.hardware_utilisation]\ndefault = 1.5",
        '[factors.lifecycle_g_per_kwh]\ncoal = 1e6',
    ],
)  # fmt: skip
def test_a_factor_is_what_its_unit_allows(text: str) -> None:
    with pytest.raises(SettingsError, match="a factor"):
        read_factors(parse(text, Path("wattledger.toml")))


@pytest.mark.parametrize(
    "name", ["a&b", 'quo"te', "back\\slash", "new\nline", "\x7f", "%", " ", "é\U0001f600"]
)
def test_a_folder_of_any_name_can_be_a_project(name: str, tmp_path: Path) -> None:
    """Names of folders are written as TOML writes texts, and as Prefect takes names."""
    settings = load(create_project(tmp_path / name).parent)
    assert settings.project.name
    assert settings.project.title or not name.strip()
    assert parse(f"[project]\ntitle = {quote_text(name)}\n", Path("t")).project.title == name
