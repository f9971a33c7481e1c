"""The deployments of docs/deploy: they parse, and what can be tried here runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.node.conftest import HOST

DEPLOY = ROOT / "docs" / "deploy"


def test_slurm_scripts_record_a_job_and_never_fail_it(tmp_path: Path, driver: Path) -> None:
    # The command as the scripts find it on a node.
    command = tmp_path / "bin" / "wattledger"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m flows.cli "$@"\n')
    command.chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": str(driver),
        "WATTLEDGER_SPOOL": str(tmp_path / "spool"),
        "WATTLEDGER_HOST": HOST,
        "SLURM_JOB_ID": "1",
        "SLURM_CLUSTER_NAME": "test",
        "SLURM_JOB_GPUS": "0",
        "SLURM_JOB_UID": "1001",
    }
    for script, ended in (("slurm-prolog.sh", False), ("slurm-epilog.sh", True)):
        subprocess.run(["sh", str(DEPLOY / script)], env=env, check=True, cwd=tmp_path, timeout=60)
        [path] = (tmp_path / "spool" / HOST / "runs").glob("*/*.json")
        record = json.loads(path.read_text())
        assert record["run_id"] == "test-1"
        assert (record["ended_at"] is not None) == ended
        assert record["owner_uid"] == 1001
    env["WATTLEDGER_SPOOL"] = "/proc/nowhere"
    done = subprocess.run(["sh", str(DEPLOY / "slurm-prolog.sh")], env=env, timeout=60)
    assert done.returncode == 0


def test_the_unit_is_one_that_systemd_takes() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    done = subprocess.run(
        ["systemd-analyze", "verify", str(DEPLOY / "wattledger-collect.service")],
        capture_output=True,
        text=True,
    )
    said = [line for line in done.stderr.splitlines() if "is not executable" not in line]
    assert not [line for line in said if "wattledger" in line]


def test_the_unit_lets_only_root_write_the_spool() -> None:
    unit = (DEPLOY / "wattledger-collect.service").read_text()
    for line in ("UMask=0022", "StateDirectoryMode=0755", "NoNewPrivileges=true"):
        assert line in unit.splitlines()


def test_the_manifest_is_yaml_of_the_collector() -> None:
    yaml = pytest.importorskip("yaml")
    claim, daemon = yaml.safe_load_all((DEPLOY / "daemonset.yaml").read_text())
    pod = daemon["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert (container["args"], pod["hostPID"]) == (["collect"], True)
    names = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == names
    security = container["securityContext"]
    assert (security["allowPrivilegeEscalation"], security["capabilities"]["drop"]) == (
        False,
        ["ALL"],
    )
    # The key is in no claim.
    [keys] = [volume for volume in pod["volumes"] if volume["name"] == "keys"]
    assert "hostPath" in keys
    assert claim["metadata"]["name"] == pod["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert daemon["spec"]["selector"]["matchLabels"].items() <= (
        daemon["spec"]["template"]["metadata"]["labels"].items()
    )


def test_the_containerfile_copies_what_the_package_needs() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    copied = set(" ".join(re.findall(r"^COPY (.+) \S+$", text, re.M)).split())
    for path in copied:
        assert (ROOT / path).exists(), path
    assert {"flows", "transforms", "expectations", "sql", "requirements.lock"} <= copied


def test_links_of_the_docs_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
