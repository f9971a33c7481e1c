"""What a DCGM exporter says, read as GPUs and pods."""

from __future__ import annotations

from tests.exporter_server import GPU0, Exporter
from wattledger.meters import dcgm


def test_an_exposition_is_read_as_gpus_and_pods() -> None:
    first, second = dcgm.parse_gpus(Exporter()("", {})[2])
    assert (first.uuid, first.index, first.host) == (GPU0, 0, "node01")
    assert first.values["power_mw"] == 300_500
    assert first.values["temp_c"] == 55
    assert first.values["energy_mj"] >= 0
    assert set(first.pods) == {("ml", "train-0")}
    assert second.pods == {}


def test_instances_repeat_their_gpu_and_are_shares_of_it() -> None:
    labels = 'gpu="0",UUID="GPU-x",modelName="NVIDIA A100-SXM4-80GB",Hostname="n"'
    text = (
        f"# TYPE {dcgm.POWER} gauge\n"
        f'{dcgm.POWER}{{{labels},GPU_I_PROFILE="3g.40gb",GPU_I_ID="1",pod="a",namespace="ml"}} 111\n'
        f'{dcgm.POWER}{{{labels},GPU_I_PROFILE="4g.40gb",GPU_I_ID="2",pod="b",namespace="ml"}} 222\n'
        f"{dcgm.POWER}{{{labels}}} 333\n"
    )
    [gpu] = dcgm.parse_gpus(text)
    assert gpu.values == {"power_mw": 333_000}
    shares = {name: held.share_ppm for (_, name), held in gpu.pods.items()}
    assert shares == {"a": 428_571, "b": 571_428}
