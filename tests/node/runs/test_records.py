"""Run records: what is written is read again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.node.runs.conftest import GPUS
from wattledger.runs.environment import begin_record
from wattledger.runs.records import format_utc, load_record


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = begin_record({}, GPUS, "n1", labels={"ключ": "значение"})
    path = record.save(tmp_path)
    assert load_record(path) == record
    path.write_text('{"run_id": "x"}')
    with pytest.raises(ValueError, match="not a run record"):
        load_record(path)


def test_times_are_written_to_the_microsecond() -> None:
    assert format_utc(1_700_000_000_000_001) == "2023-11-14T22:13:20.000001Z"
