"""What the gate looks at beyond the arithmetic, and overrides of it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from expectations.checks import Suite, Verdict, no_rows
from expectations.gate import Gate
from flows import settings as settings_module
from flows.accounting.compute import compute
from flows.errors import GateFailed, SettingsError, UsageError
from flows.ingest.gpu import ingest_gpu
from flows.ingest.grid import ingest_grid
from flows.ingest.meters import ingest_meter
from flows.ingest.runs import ingest_runs
from flows.publication.gate import build_suites, check_candidate
from flows.publication.publish import publish_candidate
from flows.settings import Override, Settings
from flows.sources.gpu import segments
from flows.warehouse.connection import connect
from flows.warehouse.frames import insert, query_rows
from flows.warehouse.store import open_for_writing, store_of
from tests.conftest import T0, ask, grid_csv, make_project, segment, wattledger
from tests.flows.publication.helpers import ask_published
from transforms.profile import merge_profiles, profile_rows


def warned(verdicts: list[Verdict]) -> dict[str, list[dict[str, Any]]]:
    return {
        f"{v.suite.name}.{r.check.name}": r.rows
        for v in verdicts
        for r in [*v.failures, *v.warnings]
    }


def with_settings(project: Settings, text: str) -> Settings:
    path = project.root / "wattledger.toml"
    path.write_text(path.read_text() + text)
    return settings_module.load(project.root)


def thinned(folder: Path, keep: pl.Expr, name: str = "node01") -> Path:
    """The usual segment with some of its readings."""
    path = segment(folder, name)
    frame = pl.read_parquet(path).filter(keep)
    segments.write(frame, path)
    return path


SECOND = (pl.col("ts") - pl.lit(T0)).dt.total_seconds()


def test_missing_readings_are_counted_by_gpu_and_hour(project: Settings) -> None:
    lost = SECOND.is_between(600, 899) & (pl.col("gpu_index") == 1)
    ingest_gpu(project, [thinned(project.root, ~lost)])
    ingest_grid(project, [grid_csv(project.root, [100] * 4)])
    compute(project)
    found = ask(project, "FROM reading_completeness ORDER BY completeness DESC")
    assert [f["readings_received"] for f in found] == [1800, 1500]
    assert [f["readings_expected"] for f in found] == pytest.approx([1799, 1799], abs=2)
    assert found[1]["completeness"] == pytest.approx(1500 / 1799, abs=0.01)
    verdicts, _ = check_candidate(project)
    [row] = warned(verdicts)["footprint.readings_complete"]
    assert row["gpu_uuid"] == found[1]["gpu_uuid"]
    strict = with_settings(project, "[gate]\nfail_on = ['footprint.readings_complete']\n")
    with pytest.raises(SettingsError, match="no check is called"):
        check_candidate(_misspelt(strict))
    with pytest.raises(GateFailed, match="readings_complete"):
        publish_candidate(strict)
    lax = settings_module.parse("[gate]\nmin_completeness = 0.8\n", Path("x"))
    strict.gate.min_completeness = lax.gate.min_completeness
    assert publish_candidate(strict).changed


def _misspelt(project: Settings) -> Settings:
    path = project.root / "wattledger.toml"
    other = settings_module.parse(
        path.read_text().replace("footprint.readings_complete", "x.y"), path
    )
    other.root = project.root
    return other


def test_silence_of_a_day_is_not_expected_to_have_readings(project: Settings) -> None:
    ingest_gpu(project, [segment(project.root)])
    later = segment(project.root, "node01", start=T0 + timedelta(days=3))
    ingest_gpu(project, [later])
    ingest_grid(project, [grid_csv(project.root, [100] * 4)])
    con = store_of(project).connect(read_only=True)
    hours = con.execute("SELECT DISTINCT hour_start FROM reading_completeness").fetchall()
    con.close()
    assert len(hours) == 2


def test_counter_and_power_that_disagree_are_pointed_out(project: Settings) -> None:
    path = segment(project.root)
    frame = pl.read_parquet(path).with_columns(power_mw=(pl.col("power_mw") * 1.5).cast(pl.Int32))
    segments.write(frame, path)
    [outcome] = ingest_gpu(project, [path])
    assert outcome.verdict == "loaded"
    assert any("counter and the integral of power" in said for said in outcome.warnings)
    [one, *_] = ask(project, "FROM segment_profile")
    assert one["compared_power_mj"] == pytest.approx(1.5 * one["compared_counter_mj"], rel=0.02)


def test_a_sensor_that_fails_is_pointed_out(project: Settings) -> None:
    path = segment(project.root)
    broken = (SECOND == 100) & (pl.col("gpu_index") == 0)
    frame = pl.read_parquet(path).with_columns(
        power_mw=pl.when(broken).then(20_000).otherwise("power_mw").cast(pl.Int32)
    )
    segments.write(frame, path)
    [outcome] = ingest_gpu(project, [path])
    assert [said for said in outcome.warnings if "half of what this GPU draws idle" in said]


def test_the_profile_compares_only_steps_that_have_both() -> None:
    at = [0, 1, 2, 3, 103, 104, 105]
    frame = pl.DataFrame(
        {
            "gpu_uuid": "g",
            "host": "h",
            "gpu_index": 0,
            "model": None,
            "ts": [T0 + timedelta(seconds=s) for s in at],
            "power_mw": [100, 100, None, 100, 100, 100, 100],
            "energy_mj": [0, 100, 200, 300, 9000, 8000, 8100],
            "util_pct": 0,
        }
    ).with_columns(power_limit_mw=pl.lit(None, pl.Int32))
    [row] = merge_profiles([profile_rows(frame)]).to_dicts()
    halves = [profile_rows(frame[:4]), profile_rows(frame[3:], goes_on=True)]
    assert merge_profiles(halves).to_dicts() == [row]
    # 0-1 and 104-105: a missing power, a gap, and a counter that went back are left out.
    assert (row["compared_counter_mj"], row["compared_power_mj"]) == (200, 200)
    assert row["usual_step_ms"] == 1000


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("UPDATE run_allocation SET gpu_uuid = 'GPU-none'", "names an unknown GPU"),
        ("DELETE FROM training_run", "energy of an unknown run"),
        ("DELETE FROM site", "host at an unknown site"),
        ("DELETE FROM host", "host without a site"),
        ("DELETE FROM slot_signal", "slot without a signal"),
        ("UPDATE energy_slot SET gpu_key = 99", "energy of an unknown GPU"),
    ],
)
def test_what_a_row_names_is_there(sql: str, what: str, published: Settings) -> None:
    found = offenders(published, sql, "references_hold")
    assert any(what in row["what"] for row in found)


def test_all_checks_of_a_suite_see_one_state() -> None:
    query = "SELECT txid_current() AS x, '{name}' AS name FROM {{batch}}"
    checks = tuple(no_rows(name, "nothing", query.format(name=name)) for name in ("a", "b", "c"))
    con = connect(Path(":memory:"))
    con.execute("CREATE TABLE t AS SELECT 1 AS k")
    gate = Gate(con)
    first, second = (gate.run(Suite("s", "main", "t", ("k",), checks)) for _ in range(2))
    seen = [{row["x"] for one in found.results for row in one.rows} for found in (first, second)]
    assert [len(one) for one in seen] == [1, 1]
    assert seen[0] != seen[1]  # What is committed between two suites is seen.


def test_a_check_that_cant_run_is_named_with_its_cause() -> None:
    con = connect(Path(":memory:"))
    con.execute("CREATE TABLE t AS SELECT 1 AS k, 'x' AS v")
    good = no_rows("good", "nothing", "SELECT k FROM {batch} WHERE k > 1")
    bad = no_rows("bad", "nothing", "SELECT v::INTEGER FROM {batch}")
    for checks in ((good, bad), (bad, good)):
        with pytest.raises(
            RuntimeError, match=r"s\.bad could not run.*Could not convert string 'x'"
        ):
            Gate(con).run(Suite("s", "main", "t", ("k",), checks))


def offenders(project: Settings, sql: str, check: str) -> list[dict[str, Any]]:
    """What a check of the figures finds in a warehouse that was changed."""
    suite = next(s for s in build_suites(project) if s.name == "footprint")
    query = next(c for c in suite.checks if c.name == check).kwargs["unexpected_rows_query"]
    con = store_of(project).connect()
    try:
        con.execute(sql)
        return query_rows(con, query.format(batch="run_footprint"))
    finally:
        con.close()


@pytest.mark.parametrize(("factor", "pointed_out"), [(1.5, 0), (3, 1), (0.3, 1)])
def test_a_year_that_differs_much_from_the_one_before_is_pointed_out(
    factor: float, pointed_out: int, published: Settings
) -> None:
    sql = (
        "UPDATE footprint_slot SET held_us = held_us * 10; "
        "INSERT INTO footprint_slot SELECT * REPLACE (slot_start - INTERVAL 1 YEAR AS slot_start, "
        f"(co2e_ug * {factor})::BIGINT AS co2e_ug) FROM footprint_slot"
    )
    found = offenders(published, sql, "years_alike")
    assert len(found) == pointed_out
    for row in found:
        assert row["year_before_g_per_kwh"] == pytest.approx(factor * row["g_per_kwh"], rel=1e-6)
        assert row["year_before_kwh_per_gpu_h"] == row["kwh_per_gpu_h"]


def test_a_run_that_draws_far_more_than_the_one_before_is_pointed_out(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p", "[zones.XX]\nfallback_intensity_g_per_kwh = 300\n")
    ingest_gpu(project, [segment(project.root, seconds=9000, work=[])])
    path = project.root / "more.parquet"
    frame = pl.read_parquet(segment(project.root, seconds=9000, work=[]))
    boosted = frame.with_columns(
        pl.col("ts") + timedelta(hours=3),
        power_mw=(pl.col("power_mw") * 3).cast(pl.Int32),
        energy_mj=pl.col("energy_mj") * 3,
    )
    segments.write(boosted, path)
    ingest_gpu(project, [path])
    table = project.root / "runs.csv"
    table.write_text(
        "run_id,started_at,ended_at,host,gpu,family\n"
        "a,2024-05-01T12:05:00Z,2024-05-01T14:05:00Z,node01,all,f\n"
        "b,2024-05-01T15:05:00Z,2024-05-01T17:05:00Z,node01,all,f\n"
    )
    ingest_runs(project, [table])
    compute(project)
    verdicts, _ = check_candidate(project)
    [row] = warned(verdicts)["footprint.runs_alike"]
    assert (row["run_id"], row["before_run_id"]) == ("b", "a")


METERS = "meter,scope,metered,valid_from,valid_to,energy_kwh\n"


def meter_csv(project: Settings, *lines: str) -> Path:
    path = project.root / "meter.csv"
    path.write_text(METERS + "\n".join(lines) + "\n")
    return path


def test_a_bill_and_a_pdu_are_compared_with_the_ledger(loaded: Settings) -> None:
    compute(loaded)
    [(host, site)] = [
        (r["host_kwh"], r["site_kwh"])
        for r in ask(
            loaded,
            "SELECT (SELECT sum(it_mj) FROM host_energy_slot) / 3.6e9 AS host_kwh, "
            "(SELECT sum(facility_mj) FROM footprint_slot) / 3.6e9 AS site_kwh",
        )
    ]
    assert site == pytest.approx(1.2 * host, rel=1e-6)
    span = "2024-05-01T12:00:00Z,2024-05-01T12:30:00Z"
    half = "2024-05-01T12:00:00Z,2024-05-01T12:12:30Z"
    long = "2024-05-01T00:00:00Z,2024-05-02T00:00:00Z"
    path = meter_csv(
        loaded,
        f"pdu,host,node01,{span},{host * 1.01}",
        f"bill,site,main,{span},{site * 1.3}",
        f"month,site,main,{long},1",
        f"half,host,node01,{half},0.1",
    )
    [outcome] = ingest_meter(loaded, [path])
    assert outcome.rows_loaded == 4
    assert ingest_meter(loaded, [path])[0].verdict == "known"
    found = {row["meter"]: row for row in ask(loaded, "FROM meter_reconciliation")}
    assert found["pdu"]["meter_difference"] == pytest.approx(1 / 1.01 - 1)
    assert found["pdu"]["covered_share"] == pytest.approx(1)
    assert found["bill"]["ledger_low_kwh"] < found["bill"]["ledger_kwh"] == pytest.approx(site)
    assert found["month"]["covered_share"] == pytest.approx(0.5 / 24)
    slots = ask(loaded, "SELECT it_mj FROM host_energy_slot ORDER BY slot_start")
    expected = slots[0]["it_mj"] + slots[1]["it_mj"] + slots[2]["it_mj"] / 2
    assert found["half"]["ledger_kwh"] == pytest.approx(expected / 3.6e9)
    compute(loaded)
    verdicts, _ = check_candidate(loaded)
    meters = {row["meter"] for row in warned(verdicts)["footprint.other_meters_agree"]}
    assert "bill" in meters
    assert not {"pdu", "month"} & meters
    # A corrected bill takes the place of the first.
    ingest_meter(loaded, [meter_csv(loaded, f"bill,site,main,{span},{site}")])
    found = {row["meter"]: row for row in ask(loaded, "FROM meter_reconciliation")}
    assert found["bill"]["meter_difference"] == pytest.approx(0, abs=1e-9)
    assert len(found) == 4


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "a,rack,x,2024-05-01T12:00:00Z,2024-05-01T13:00:00Z,1",
            "row 2, column 'scope', value 'rack'",
        ),
        (
            "a,host,x,2024-05-01T12:00:00Z,2024-05-01T13:00:00Z,-1",
            "column 'energy_kwh', value '-1'",
        ),
        ("a,host,x,2024-05-01T13:00:00Z,2024-05-01T12:00:00Z,1", "an end after its start"),
        ("a,host,x,noon,2024-05-01T12:00:00Z,1", "not a time"),
        ("a,host,,2024-05-01T12:00:00Z,2024-05-01T13:00:00Z,1", "row 2, column 'metered'"),
        (
            "a,host,x,2024-05-01T12:00:00Z,2024-05-01T14:00:00Z,1\n"
            "a,host,x,2024-05-01T13:00:00Z,2024-05-01T15:00:00Z,1",
            "overlap from 2024-05-01T13:00Z",
        ),
    ],
)
def test_a_meter_that_makes_no_sense_is_refused(line: str, said: str, project: Settings) -> None:
    [outcome] = ingest_meter(project, [meter_csv(project, line)])
    assert outcome.verdict == "quarantined"
    assert said in outcome.reason


BELIEVED = "\n[gate]\nmax_intensity_g_per_kwh = 250\n"
CHECK = "slot_signal.intensity_believable"


def test_an_override_needs_a_name_and_a_reason_and_is_on_the_ledger(published: Settings) -> None:
    project = with_settings(published, BELIEVED)
    with pytest.raises(GateFailed, match=CHECK):
        publish_candidate(project)
    said = wattledger("publish", "--override", CHECK, "--by", "R. Roe", "--project", project.root)
    assert said.returncode == 1
    assert "needs --by and --because" in said.stderr
    words = ["--by", "R. Roe", "--because", "a cold week, confirmed by the operator"]
    said = wattledger("publish", "--override", CHECK, *words, "--project", project.root)
    assert said.returncode == 0, said.stderr
    assert "overridden by R. Roe (a cold week, confirmed by the operator)" in said.stdout
    [row] = ask_published(project, "FROM gate_override")
    assert (row["suite"], row["check_name"]) == tuple(CHECK.split("."))
    assert (row["overridden_by"], row["unexpected_rows"]) == ("R. Roe", 6)
    for page in ("report.html", "summary.html"):
        text = (project.published / page).read_text("utf-8")
        assert "R. Roe" in text
        assert "a cold week, confirmed by the operator" in text
    assert ask(project, "FROM gate_override") == ask_published(project, "FROM gate_override")
    verified = wattledger("verify", "--project", project.root)
    assert verified.returncode == 0, verified.stdout


def test_overrides_of_the_settings_end(published: Settings) -> None:
    today = datetime.now(UTC).date()
    for until, works in ((today - timedelta(days=1), False), (today, True)):
        project = with_settings(published, BELIEVED)
        project.override = [Override(check=CHECK, by="R. Roe", reason="known", until=until)]
        if works:
            assert publish_candidate(project).changed
        else:
            with pytest.raises(GateFailed, match=CHECK):
                publish_candidate(project)
        path = project.root / "wattledger.toml"
        path.write_text(path.read_text().replace(BELIEVED, ""))


@pytest.mark.parametrize(
    "check", ["footprint.energy_conserved", "footprint.slots_add_up", "no.such"]
)
def test_some_checks_nobody_can_override(check: str, published: Settings) -> None:
    project = with_settings(published, BELIEVED)
    one = Override(check=check, by="R. Roe", reason="please", until=date.max)
    said = "no check is called" if check == "no.such" else "contradict themselves"
    with pytest.raises(UsageError, match=said):
        publish_candidate(project, [one])
    project.override = [one]
    with pytest.raises(UsageError, match=said):
        publish_candidate(project)


def test_settings_changed_after_computing_are_not_published(published: Settings) -> None:
    path = published.root / "wattledger.toml"
    path.write_text(path.read_text().replace("value = 1.2,", "value = 1.25,"))
    with pytest.raises(
        UsageError, match="settings were changed after the figures were computed: site"
    ):
        publish_candidate(settings_module.load(published.root))


def test_a_row_that_stands_twice_is_never_published(loaded: Settings) -> None:
    compute(loaded)
    with open_for_writing(store_of(loaded)) as con:
        con.execute("INSERT INTO energy_slot FROM energy_slot LIMIT 1")
    with pytest.raises(GateFailed, match=r"grain.keys_are_unique.*energy_slot"):
        publish_candidate(loaded)
    assert not loaded.published.exists()


def test_a_loaded_key_that_stands_twice_is_a_defect_and_loud(loaded: Settings) -> None:
    row = {"gpu_key": 99, "gpu_uuid": "GPU-x", "host": "h", "gpu_index": 0, "model": None}
    with open_for_writing(store_of(loaded)) as con:
        for rows in ([row, row], pl.DataFrame([row, row])):
            with pytest.raises(RuntimeError, match="two rows of gpu have the key"):
                insert(con, "gpu", rows)
