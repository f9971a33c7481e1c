"""Which run a process belongs to and which GPUs it holds, from its environment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.node.runs.conftest import GPUS
from wattledger.readings import Gpu
from wattledger.runs.environment import begin_record, find_visible_gpus, identify_run


def visible(text: str | None, gpus: list[Gpu] = GPUS, **more: str) -> tuple[list[str], list[str]]:
    environment = more if text is None else {"CUDA_VISIBLE_DEVICES": text, **more}
    held, notes = find_visible_gpus(environment, gpus)
    return [h.instance or h.gpu_uuid for h in held], notes


ALL = [gpu.uuid for gpu in GPUS]


@pytest.mark.parametrize(
    ("text", "uuids"),
    [
        (None, ALL),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1", ["GPU-aaaa2222"]),
        ("2,0", ["GPU-bbbb0000", "GPU-aaaa1111"]),
        (" 0 , 1 ", ["GPU-aaaa1111", "GPU-aaaa2222"]),
        ("GPU-bbbb", ["GPU-bbbb0000"]),
        ("GPU-aaaa1", ["GPU-aaaa1111"]),
        ("MIG-dddd", ["MIG-dddd"]),
        ("MIG-cccc,MIG-dddd", ["MIG-cccc", "MIG-dddd"]),
        # As CUDA does: the list ends at the first entry that names nothing.
        ("1,-1,0", ["GPU-aaaa2222"]),
    ],
)
def test_visible_devices(text: str | None, uuids: list[str]) -> None:
    assert visible(text) == (uuids, [])


def test_doubts_about_visible_devices_are_said() -> None:
    assert visible("0,9,1")[0] == ["GPU-aaaa1111"]
    assert "'9', which is not here" in visible("0,9,1")[1][0]
    assert visible("0,0") == ([], ["CUDA_VISIBLE_DEVICES names '0' twice: CUDA then uses no GPU"])
    assert visible("GPU-aaaa")[0] == []  # of two GPUs
    mixed = [*GPUS, Gpu("GPU-eeee", 3, "RTX A400")]
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in visible("0", mixed)[1][0]
    assert visible("0", mixed, CUDA_DEVICE_ORDER="PCI_BUS_ID")[1] == []


def test_an_instance_is_held_as_a_share_of_its_gpu() -> None:
    [held], _ = find_visible_gpus({"CUDA_VISIBLE_DEVICES": "MIG-cccc"}, GPUS)
    assert (held.gpu_uuid, held.share_ppm, held.instance) == ("GPU-bbbb0000", 571_428, "MIG-cccc")


@given(st.text(alphabet="0123,-GPUMIabcd ", max_size=40))
def test_any_text_gives_known_gpus_each_once(text: str) -> None:
    uuids, _ = visible(text)
    assert len(uuids) == len(set(uuids))
    assert set(uuids) <= {*ALL, "MIG-cccc", "MIG-dddd"}


def run_id(**environment: str) -> str:
    return identify_run(environment, "train", "node01")[0]


def test_ranks_agree_on_the_run() -> None:
    slurm = {"SLURM_JOB_ID": "12", "SLURM_CLUSTER_NAME": "hpc"}
    assert run_id(**slurm) == "hpc-12"
    assert run_id(**slurm, SLURM_STEP_ID="3") == "hpc-12"
    assert run_id(**slurm, SLURM_ARRAY_JOB_ID="9", SLURM_ARRAY_TASK_ID="4") == "hpc-9_4"
    assert run_id(TORCHELASTIC_RUN_ID="exp7") == "torchrun-exp7"
    assert run_id(PMIX_NAMESPACE="prterun-n1-55@1") == "mpi-prterun-n1-55-1"
    assert run_id(WATTLEDGER_RUN_ID="mine", **slurm) == "mine"
    pods = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "POD_NAMESPACE": "ml"}
    for index in ("0", "1"):
        pod = f"llama-{index}-x2x4z"
        assert run_id(JOB_COMPLETION_INDEX=index, POD_NAME=pod, **pods) == "k8s-ml-llama"


def test_ranks_of_one_host_agree_without_any_id() -> None:
    ranks = {"MASTER_ADDR": "n1", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "none"}
    first, notes = identify_run(
        {**ranks, "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "RANK": "0"}, "train", "n1"
    )
    second, _ = identify_run(
        {**ranks, "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "RANK": "1"}, "train", "n1"
    )
    assert first == second
    assert notes == []
    _, notes = identify_run({**ranks, "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}, "t", "n1")
    assert "--rdzv-id" in notes[0]


def test_runs_without_a_launcher_are_apart() -> None:
    assert run_id() != run_id()
    assert run_id().startswith("train-")


def test_what_slurm_and_kubernetes_say_is_kept() -> None:
    environment = {
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_NODELIST": "n[1-4]",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "1",
        "SLURM_NTASKS": "4",
        "KUBERNETES_SERVICE_HOST": "x",
        "HOSTNAME": "pod-1",
        "NODE_NAME": "n1",
        "AWS_SECRET_ACCESS_KEY": "no",
    }
    record = begin_record(environment, GPUS, "n1", program=["/usr/bin/python3", "-u", "/a/fit.py"])
    assert record.name == "fit"
    assert record.slurm["SLURM_JOB_NODELIST"] == "n[1-4]"
    assert record.ranks == {"rank": 3, "local_rank": 1, "world_size": 4}
    assert record.kubernetes["pod"] == "pod-1"
    assert "no" not in record.slurm.values()
    assert not record.is_first_here
