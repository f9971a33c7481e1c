"""Facts about readings: against plain Python, and whatever the parts in which they are looked at."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms import profile as module
from transforms.profile import merge_profiles, profile_rows

SCHEMA = {
    "gpu_uuid": pl.String,
    "host": pl.String,
    "gpu_index": pl.Int32,
    "model": pl.String,
    "ts": pl.Datetime("us", "UTC"),
    "power_mw": pl.Int32,
    "energy_mj": pl.Int64,
    "util_pct": pl.Int16,
    "power_limit_mw": pl.Int32,
}
STEPS = (0, 1_000_000, 500_000, 31_000_000, -2_000_000, 1_000_001)
READING = st.tuples(
    st.sampled_from("abc"),
    st.sampled_from(STEPS),
    st.none() | st.integers(-5, 700_000),
    st.none() | st.integers(-5, 10**12),
    st.none() | st.integers(0, 101),
    st.none() | st.integers(0, 700_000),
)


def frame(readings: list[tuple[Any, ...]]) -> pl.DataFrame:
    rows, at = [], 1_700_000_000_000_000
    for gpu, step, power, energy, util, limit in readings:
        at += step
        rows.append((gpu, "node", 0, "model", at, power, energy, util, limit))
    raw = pl.DataFrame(rows, schema={**SCHEMA, "ts": pl.Int64}, orient="row")
    return raw.with_columns(pl.from_epoch("ts", "us").dt.replace_time_zone("UTC"))


def expected(readings: pl.DataFrame) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    before: dict[str, Any] | None = None
    for row in readings.with_columns(pl.col("ts").to_physical()).iter_rows(named=True):
        fresh = row["gpu_uuid"] not in found
        facts = found.setdefault(
            row["gpu_uuid"],
            dict.fromkeys(
                ("rows_read", "null_power", "null_energy", "no_value", "negative_energy", "steps_back",
                 "conflicts", "counter_resets", "compared_counter_mj", "compared_power_mj", "power_sum_mw", "still_us"), 0,
            ) | {"gaps": [], "implied": [], "short": [], "power": [], "util": [], "energy": [], "limit": []},
        )  # fmt: skip
        power, energy = row["power_mw"], row["energy_mj"]
        facts["rows_read"] += 1
        facts["null_power"] += power is None
        facts["null_energy"] += energy is None
        facts["no_value"] += power is None and energy is None
        facts["negative_energy"] += energy is not None and energy < 0
        facts["power"] += [] if power is None else [power]
        facts["power_sum_mw"] += power or 0
        facts["util"] += [] if row["util_pct"] is None else [row["util_pct"]]
        facts["energy"] += [] if energy is None else [energy]
        facts["limit"] += [] if row["power_limit_mw"] is None else [row["power_limit_mw"]]
        if before is not None and before["gpu_uuid"] == row["gpu_uuid"]:
            step = row["ts"] - before["ts"]
            facts["gaps"].append(step)
            facts["steps_back"] += step < 0
            facts["conflicts"] += step == 0
            rise = None
            if energy is not None and before["energy_mj"] is not None:
                rise = energy - before["energy_mj"]
                facts["counter_resets"] += rise < 0
                facts["still_us"] += step if rise == 0 and step > 0 else 0
                if step >= 1_000_000:
                    facts["implied"].append(rise * 1_000_000 // step)
            if 0 < step <= 30_000_000:
                facts["short"].append(step)
                if rise is not None and rise >= 0 and None not in (power, before["power_mw"]):
                    facts["compared_counter_mj"] += rise
                    facts["compared_power_mj"] += (power + before["power_mw"]) * step // 2_000_000
        elif not fresh:
            facts["steps_back"] += 1  # It comes back after another GPU.
        before = row
    for facts in found.values():
        gaps, implied, short = (facts.pop(name) for name in ("gaps", "implied", "short"))
        power, util = facts.pop("power"), facts.pop("util")
        facts["max_energy_mj"] = max(facts.pop("energy"), default=None)
        facts["board_limit_mw"] = max(facts.pop("limit"), default=None)
        facts["longest_gap_ms"] = max(gaps) // 1000 if gaps else 0
        facts["max_counter_mw"] = max(implied, default=None)
        facts["usual_step_ms"] = sum(short) // len(short) // 1000 if short else None
        facts["min_power_mw"], facts["max_power_mw"] = (
            min(power, default=None),
            max(power, default=None),
        )
        facts["min_util_pct"], facts["max_util_pct"] = (
            min(util, default=None),
            max(util, default=None),
        )
    return found


@given(
    st.lists(READING, min_size=1, max_size=60), st.integers(1, 60), st.sampled_from([3, 1 << 16])
)
def test_against_plain_python(readings: list[tuple[Any, ...]], cut: int, block: int) -> None:
    whole = frame(readings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        found = merge_profiles([profile_rows(whole)])
        cut = min(cut, whole.height)
        rest = [profile_rows(whole[cut - 1 :], goes_on=True)] if cut < whole.height else []
        assert merge_profiles([profile_rows(whole[:cut]), *rest]).equals(found)
    for gpu, facts in expected(whole).items():
        [row] = found.filter(gpu_uuid=gpu).to_dicts()
        assert {name: row[name] for name in facts} == facts
