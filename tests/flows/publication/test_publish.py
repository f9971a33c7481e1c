"""The gate and publication: a refused candidate publishes nothing, a kill leaves no half result."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import polars as pl
import pytest

from flows.accounting.compute import compute
from flows.errors import GateFailed, UsageError, WarehouseBusy, WarehouseError
from flows.factors import find_value, read_factors
from flows.ingest.gpu import ingest_gpu
from flows.ingest.grid import ingest_grid
from flows.ingest.runs import ingest_runs
from flows.publication.gate import check_candidate
from flows.publication.publish import publish_candidate
from flows.settings import Settings
from flows.warehouse.connection import connect
from flows.warehouse.store import open_warehouse, store_of
from tests import preloaded
from tests.conftest import ROOT, grid_csv, make_project, runs_csv, segment
from transforms.schema import TABLES


def fingerprint(folder: Path) -> dict[str, str]:
    """Digest of every file of the publication in force."""
    target = folder.resolve()
    return {
        str(path.relative_to(target.parent)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(target.rglob("*"))
        if path.is_file()
    }


def write(project: Settings, sql: str) -> None:
    con = open_warehouse(store_of(project))
    con.execute(sql)
    con.close()


def test_figures_by_hand(published: Settings) -> None:
    """The chain from readings to CO2e and water, recomputed in plain Python."""
    frame = pl.read_parquet(published.root / "node01.parquet")
    # The run holds whole slots 12:05 to 12:15; the counter is there all the time.
    energy = 0
    for _, gpu in frame.group_by("gpu_uuid"):
        times = gpu["ts"].dt.epoch("us").to_list()
        counts = gpu["energy_mj"].to_list()
        for start in (1714565100, 1714565400):
            for t0, t1, c0, c1 in zip(times, times[1:], counts, counts[1:], strict=False):
                a, b = max(t0, start * 10**6), min(t1, (start + 300) * 10**6)
                if b > a:
                    energy += (c1 - c0) * (b - t0) // (t1 - t0) - (c1 - c0) * (a - t0) // (t1 - t0)
    con = duckdb.connect(str(published.published_database), read_only=True)
    [(mj, facility, co2e, on_site, off_site)] = con.execute(
        "SELECT energy_mj, facility_mj, co2e_ug, water_onsite_ul, water_offsite_ul FROM run_footprint WHERE run_id = 'r1'"
    ).fetchall()
    [(kwh, kg)] = con.execute("SELECT energy_kwh, co2e_kg FROM run_summary").fetchall()
    con.close()
    assert mj == energy
    assert facility == pytest.approx(energy * 1.2, abs=2)
    assert co2e == pytest.approx(facility / 3.6e9 * 300 * 1e6, abs=4)  # 12:00 to 12:30: 300 g
    assert on_site == pytest.approx(energy / 3.6e9 * 0.5 * 1e6, abs=4)
    # Nobody knows the mix of zone XX: the world's, by the factors per fuel.
    world = find_value(read_factors(published), "country_ewif_l_per_kwh", "world")
    assert off_site == pytest.approx(facility / 3.6e9 * world * 1e6, abs=4)
    assert kwh == pytest.approx(energy / 3.6e9)
    assert kg == pytest.approx(co2e / 1e9)


def test_publishing_again_changes_nothing(published: Settings) -> None:
    before = fingerprint(published.published)
    again = publish_candidate(published)
    assert not again.changed
    assert fingerprint(published.published) == before
    compute(published)
    assert not publish_candidate(published).changed


def test_a_changed_figure_is_a_new_publication_that_names_the_old(published: Settings) -> None:
    first = published.published.resolve()
    ingest_grid(published, [grid_csv(published.root, [100, 200, 301, 400])])
    with pytest.raises(UsageError, match="loaded after the figures were computed"):
        publish_candidate(published)
    compute(published)
    second = publish_candidate(published)
    assert second.changed
    assert first.exists()
    con = connect(second.database, read_only=True)
    chain = con.execute(
        "SELECT manifest_sha256, previous_digest FROM publication ORDER BY sequence"
    ).fetchall()
    con.close()
    assert chain[1][1] == chain[0][0]


CORRUPTED = {
    "energy is lost": (
        "UPDATE conservation SET idle_mj = idle_mj - 1, difference_mj = 1 WHERE gpu_key = 1",
        "footprint.energy_conserved",
        "gpu_key=1",
    ),
    "a total is off": (
        "UPDATE run_footprint SET energy_mj = energy_mj + 1 WHERE run_id = 'r1'",
        "footprint.slots_add_up",
        "run_id=r1",
    ),
    "bounds are swapped": (
        "UPDATE run_footprint SET co2e_low_ug = co2e_ug + 1 WHERE run_id = 'r1'",
        "footprint.bounds_hold",
        "run_id=r1",
    ),
    "carbon is missing": (
        "UPDATE run_footprint SET co2e_ug = NULL WHERE run_id = 'r1'",
        "footprint.figures_there",
        "run_id=r1",
    ),
    "a run is missing": (
        "DELETE FROM run_footprint WHERE run_id = 'r1'",
        "footprint.every_run_counted",
        "run_id=r1",
    ),
    "an intensity is absurd": (
        "UPDATE slot_signal SET intensity_g_per_kwh = 5000, intensity_high_g_per_kwh = 6000",
        "slot_signal.intensity_believable",
        "zone=XX",
    ),
    "more measured than used": (
        "UPDATE run_footprint SET measured_mj = energy_mj + 1",
        "footprint.measured_within_energy",
        "run_id=r1",
    ),
    "a profile shows a fault": (
        "UPDATE segment_profile SET min_power_mw = -1",
        "readings.power_not_negative",
        "source_name=",
    ),
    "shares over 100 %": (
        "INSERT INTO run_allocation SELECT * REPLACE ('x' AS run_id) FROM run_allocation",
        "runs.shares_add_up",
        "run_id=",
    ),
}


@pytest.mark.parametrize("case", CORRUPTED)
def test_a_failed_gate_publishes_nothing(case: str, published: Settings) -> None:
    sql, check, row = CORRUPTED[case]
    before = fingerprint(published.published)
    write(published, sql)
    write(published, "UPDATE computation SET input_digest = input_digest")
    if case == "shares over 100 %":
        from flows.warehouse.digests import digest_inputs

        con = open_warehouse(store_of(published))
        con.execute("UPDATE computation SET input_digest = ?", [digest_inputs(con)])
        con.close()
    with pytest.raises(GateFailed) as caught:
        publish_candidate(published)
    assert caught.value.exit_code == 3
    assert check in str(caught.value)
    assert row in str(caught.value)
    assert "What was published stands" in str(caught.value)
    assert fingerprint(published.published) == before
    assert (published.work / "data_docs" / "index.html").exists()
    assert [p.name for p in published.publications.iterdir()] == [
        published.published.resolve().name
    ]
    con = store_of(published).connect(read_only=True)
    [(failed,)] = con.execute(
        "SELECT count(*) FROM validation_result WHERE NOT success AND severity = 'fail'"
    ).fetchall()
    con.close()
    assert failed >= 1


def test_uncovered_carbon_is_refused_with_the_remedy(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p", '[grid]\nladder = ["live", "cached"]\n')
    root = project.root
    ingest_gpu(project, [segment(root)])
    ingest_grid(project, [grid_csv(root, [100, 200])])  # ends at 12:00, where the readings begin
    ingest_runs(
        project, [runs_csv(root, ["r1,2024-05-01T12:05:00Z,2024-05-01T12:15:00Z,node01,all,1"])]
    )
    with pytest.raises(Exception, match="zone 'XX' has grid data, but none for the time") as caught:
        compute(project)
    assert getattr(caught.value, "exit_code", 0) == 2
    ingest_grid(project, [grid_csv(root, [100, 200, 300])])  # ends at 12:30: covers all
    compute(project)
    assert publish_candidate(project).changed
    ingest_gpu(project, [segment(root, "node02", seconds=3000)])
    ingest_runs(
        project,
        [runs_csv(root, ["r2,2024-05-01T12:05:00Z,2024-05-01T12:45:00Z,node02,all,1"], "b.csv")],
    )
    compute(project)
    with pytest.raises(
        GateFailed, match=r"footprint.carbon_covered.*run_id=r2.*wattledger ingest grid"
    ):
        publish_candidate(project)


def test_fallback_is_used_marked_and_warned_about(tmp_path: Path) -> None:
    project = make_project(
        tmp_path / "p",
        "[zones.XX]\nfallback_intensity_g_per_kwh = { value = 500, low = 100, high = 900 }\n",
    )
    ingest_gpu(project, [segment(project.root)])
    ingest_runs(
        project,
        [runs_csv(project.root, ["r1,2024-05-01T12:05:00Z,2024-05-01T12:15:00Z,node01,all,1"])],
    )
    compute(project)
    done = publish_candidate(project)
    assert "slot_signal.no_fallback" in done.warnings[0]
    con = connect(done.database, read_only=True)
    assert con.execute("SELECT intensity_fallback_share FROM data_quality").fetchall() == [(1.0,)]
    assert con.execute("SELECT co2e_measured_share FROM run_summary").fetchall() == [(0.0,)]
    con.close()


def test_unknown_zone_names_the_known_ones(project: Settings) -> None:
    ingest_gpu(project, [segment(project.root)])
    ingest_grid(project, [grid_csv(project.root, [1, 2], zone="YY")])
    with pytest.raises(Exception, match=r"zone 'XX' has no grid data.*Zones with data: YY"):
        compute(project)


def test_published_file_holds_views_comments_and_no_raw_readings(published: Settings) -> None:
    con = connect(published.published_database, read_only=True)
    names = {
        r[0]
        for r in con.execute(
            "SELECT table_name FROM duckdb_tables() UNION SELECT view_name FROM duckdb_views() WHERE NOT internal"
        ).fetchall()
    }
    assert {"run_summary", "fleet_summary", "energy_by_hour", "gpu_energy", "data_quality"} <= names
    assert not {"gpu_reading", "gpu_readings"} & names
    silent = con.execute(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal AND comment IS NULL "
        "UNION ALL SELECT table_name, NULL FROM duckdb_tables() WHERE comment IS NULL "
        "UNION ALL SELECT view_name, NULL FROM duckdb_views() WHERE NOT internal AND comment IS NULL"
    ).fetchall()
    con.close()
    assert silent == []


def test_readings_without_any_run_are_published_too(project: Settings) -> None:
    ingest_gpu(project, [segment(project.root)])
    ingest_grid(project, [grid_csv(project.root, [100, 200, 300, 400])])
    compute(project)
    page = publish_candidate(project).report.read_text()
    assert "No runs are recorded yet" in page
    assert "Carbon intensity used" not in page


def test_check_only_publishes_nothing(loaded: Settings) -> None:
    with pytest.raises(UsageError, match="no figures have been computed"):
        check_candidate(loaded)
    compute(loaded)
    verdicts, docs = check_candidate(loaded)
    assert all(v.success for v in verdicts)
    assert (docs / "index.html").exists()
    assert not loaded.published.exists()


@pytest.mark.parametrize("after_s", [0.05, 0.6, 1.2, 1.8, 2.4])
def test_a_kill_at_any_instant_leaves_the_last_publication(
    after_s: float, published: Settings, kill_while: Callable[..., None]
) -> None:
    before = fingerprint(published.published)
    ingest_grid(published, [grid_csv(published.root, [100, 200, 333, 400])])
    compute(published)
    kill_while(preloaded.publish, published.root, after_s=after_s)
    # Old or new, whole in either case.
    database = published.published_database
    con = connect(database, read_only=True)
    [(runs,)] = con.execute("SELECT count(*) FROM run_summary").fetchall()
    con.close()
    assert runs == 1
    if published.published.resolve().name.startswith("0001"):
        assert fingerprint(published.published) == before
    done = publish_candidate(published)
    assert done.publication_id.startswith("0002")
    assert sorted(p.name[:4] for p in published.publications.iterdir()) == ["0001", "0002"]


def test_a_kill_between_ledger_and_link_is_mended(
    published: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.publication import publish as module

    old = published.published.resolve()
    ingest_grid(published, [grid_csv(published.root, [100, 200, 333, 400])])
    compute(published)
    calls = []

    def die_at_the_end(*given: object) -> None:
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(*given)  # type: ignore[arg-type]

    real = module.put_last_in_force
    with monkeypatch.context() as patched:
        patched.setattr(module, "put_last_in_force", die_at_the_end)
        with pytest.raises(KeyboardInterrupt):
            publish_candidate(published)
    assert published.published.resolve() == old
    assert not publish_candidate(published).changed
    assert published.published.resolve().name.startswith("0002")


def test_a_folder_that_the_ledger_does_not_know_is_set_aside(published: Settings) -> None:
    """Left by a kill before it counted; the next publication may be another one of that number."""
    left = published.publications / "0002-deadbeef"
    left.mkdir()
    (left / "published.duckdb").write_text("finished, but not in the ledger")
    assert not publish_candidate(published).changed
    assert not left.exists()
    assert (published.work / "unpublished" / left.name / "published.duckdb").is_file()
    assert published.published.resolve().name.startswith("0001-")


def test_a_busy_warehouse_is_said_to_be_busy(loaded: Settings) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()",
            str(store_of(loaded)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    try:
        holder.stdout.readline()
        with pytest.raises(WarehouseBusy, match="another process is writing it") as caught:
            compute(loaded)
        assert caught.value.exit_code == 4
    finally:
        holder.communicate()


def test_a_full_disk_is_said_and_loses_nothing(project: Settings) -> None:
    """A file system limit stands in for the full disk: the kernel refuses to write further."""
    path = segment(project.root, seconds=60_000, gpus=8)
    first = segment(project.root, "node02")
    ingest_gpu(project, [first])
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "from pathlib import Path; from flows import settings; from flows.ingest.gpu import ingest_gpu; "
        "from flows.errors import WattledgerError\n"
        "p = settings.load(Path(sys.argv[1])); size = (p.root / 'warehouse.duckdb').stat().st_size\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100_000, size + 100_000))\n"
        "try:\n    ingest_gpu(p, [sys.argv[2]])\nexcept WattledgerError as e:\n    print(type(e).__name__, e); sys.exit(e.exit_code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(project.root), str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == WarehouseError.exit_code, done.stdout + done.stderr
    assert "cannot write" in done.stdout
    assert "Free some space" in done.stdout
    con = store_of(project).connect(read_only=True)
    assert con.execute("SELECT count(*) FROM gpu_reading").fetchall() == [(3600,)]
    con.close()
    assert ingest_gpu(project, [path])[0].rows_loaded == 480_000


def test_a_project_without_data_publishes_an_empty_ledger(project: Settings) -> None:
    compute(project)
    done = publish_candidate(project)
    con = connect(done.database, read_only=True)
    assert con.execute("SELECT count(*) FROM run_summary").fetchall() == [(0,)]
    con.close()
    assert "No runs are recorded yet" in done.report.read_text()


def test_every_table_of_the_warehouse_is_described(project: Settings) -> None:
    con = open_warehouse(store_of(project))
    found = {
        r[0]
        for r in con.execute(
            "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main' "
            "UNION SELECT view_name FROM duckdb_views() WHERE NOT internal AND schema_name = 'main'"
        ).fetchall()
    }
    assert found == set(TABLES)
    for table in TABLES.values():
        columns = [(r[0], r[1]) for r in con.execute(f"DESCRIBE {table.name}").fetchall()]
        assert columns == [(f.name, f.sql_type) for f in table.fields], table.name
    con.close()
