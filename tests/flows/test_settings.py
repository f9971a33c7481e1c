"""wattledger.toml: what is refused, and where the message points."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.errors import SettingsError
from flows.settings import Settings, load, parse


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
