"""What nvidia-smi writes beside plain CSV, and what is given to the wrong command."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from flows.errors import BadInput
from flows.sources.gpu.nvidia_smi import Options
from tests.flows.sources.gpu.test_nvidia_smi import read, stage

VARIANTS = {
    "units in round brackets": "Timestamp, Index, Power.Draw (W)\n2025/07/26 23:32:09, 0, 250.5\n",
    "other case and blanks": '"TIMESTAMP" ,"INDEX", " Power.Draw [W] "\n2025/07/26 23:32:09,0,250.5 W\n',
    "underscores": "timestamp,index,power_draw\n2025/07/26 23:32:09,0,250.5\n",
    "semicolons": "timestamp;index;power.draw [W]\n2025/07/26 23:32:09;0;250,50 W\n",
    "semicolons and points": "timestamp;index;power.draw [W]\n2025/07/26 23:32:09;0;250.50 W\n",
    "tabs": "timestamp\tindex\tpower.draw [W]\n2025/07/26 23:32:09\t0\t250.50 W\n",
    "milliwatts in the header": "timestamp,index,power.draw [mW]\n2025/07/26 23:32:09,0,250500\n",
    "milliwatts in the value": "timestamp,index,power.draw\n2025/07/26 23:32:09,0,250500 mW\n",
    "another order": "power.draw [W],timestamp,index\n250.5,2025/07/26 23:32:09,0\n",
}
UTC = Options(host="n1", tz="UTC")


@pytest.mark.parametrize("case", VARIANTS)
def test_headers_are_recognised_whatever_their_dress(case: str, tmp_path: Path) -> None:
    readings = read(VARIANTS[case], tmp_path)
    assert readings.select("gpu_uuid", "power_mw").rows() == [("n1/gpu0", 250_500)]


def test_the_power_is_chosen_reading_by_reading(tmp_path: Path) -> None:
    text = (
        "timestamp, uuid, power.draw [W], power.draw.average [W], power.draw.instant [W], "
        "power.limit [W], enforced.power.limit [W]\n"
        "2025/07/26 23:32:09, GPU-a, 1 W, 2 W, 3 W, 300 W, 250 W\n"
        "2025/07/26 23:32:10, GPU-a, 1 W, 2 W, [N/A], 300 W, [N/A]\n"
        "2025/07/26 23:32:11, GPU-a, 1 W, [Oh no], [N/A], [N/A], [N/A]\n"
    )
    readings = read(text, tmp_path, Options(tz="UTC"))
    assert readings["power_mw"].to_list() == [3000, 2000, 1000]
    assert readings["power_source"].to_list() == ["instant", "average_1s", "unknown"]
    assert readings["power_limit_mw"].to_list() == [250_000, 300_000, None]


DMON = """#Date       Time        gpu   pwr gtemp mtemp    sm   mem    fb  pclk
#YYYYMMDD   HH:MM:SS    Idx     W     C     C     %     %    MB   MHz
 20250726   23:32:09      0   250    61     -    97    40  1000  1980
 20250726   23:32:09      1     -    60     -    97    40  1000  1980
#Date       Time        gpu   pwr gtemp mtemp    sm   mem    fb  pclk
#YYYYMMDD   HH:MM:SS    Idx     W     C     C     %     %    MB   MHz
 20250726   23:32:10      0   251    61     -    97    40  1000  1980
 20250726   23:32:10      1   300    60     -    97    40  1000  1980
"""


@pytest.mark.parametrize("comma", [False, True])
def test_dmon_logs_are_read(comma: bool, tmp_path: Path) -> None:
    text = DMON
    if comma:
        lines = (line.split() for line in DMON.splitlines())
        text = "\n".join(", ".join(cells) for cells in lines) + "\n"
    staged = stage(text, tmp_path)
    readings = pl.read_parquet(staged.path)
    assert staged.format == "nvidia-smi-dmon"
    assert readings["gpu_uuid"].to_list() == ["n1/gpu0", "n1/gpu0", "n1/gpu1", "n1/gpu1"]
    assert readings["power_mw"].to_list() == [250_000, 251_000, None, 300_000]
    assert str(readings["ts"][0]) == "2025-07-26 23:32:09+00:00"
    assert readings.select("util_pct", "mem_used_mib", "temp_c", "sm_clock_mhz").row(0) == (
        97, 1000, 61, 1980,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DMON.replace("Date ", "").replace("20250726", ""), "has no dates.*-o DT"),
        (DMON.replace("pwr", "mem2"), "has no power"),
        (
            "# gpu        pid  type    sm   mem   enc   dec   command\n    0  1  C  1  1  -  -  python\n",
            "nvidia-smi pmon.*no power",
        ),
        ("==============NVSMI LOG==============\n\nTimestamp : Mon\n", "nvidia-smi -q. as text"),
        ("+-----------------------+\n| NVIDIA-SMI 535.54 |\n", "table of plain"),
        ("timestamp,project_name,run_id,duration,emissions\n1,2,3,4,5\n", "a file of codecarbon"),
        ("Datetime (UTC),Country,Zone Id,Carbon intensity\n1,2,3,4\n", "grid data"),
        ("JobID|User|Elapsed\n1|me|01:00:00\n", "table of Slurm jobs"),
        ("run_id,started_at,ended_at\na,b,c\n", "a table of runs"),
        ("# HELP DCGM_FI_DEV_POWER_USAGE Power\n", "page of an exporter"),
        ('{"jobs": []}\n', "this is JSON"),
        ("<?xml version='1.0'?>\n<other/>\n", "no document of .nvidia-smi -q -x"),
    ],
)
def test_what_is_no_log_of_readings_is_named_for_what_it_is(
    text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=message):
        stage(text, tmp_path)


def document(second: int, *powers: str, old: bool = False) -> str:
    group = "power_readings" if old else "gpu_power_readings"
    name = "power_draw" if old else "instant_power_draw"
    gpus = "".join(
        f"""
\t<gpu id="00000000:{index:02X}:00.0">
\t\t<product_name>NVIDIA A10G</product_name>
\t\t<uuid>GPU-{index}</uuid>
\t\t<utilization><gpu_util>97 %</gpu_util></utilization>
\t\t<{group}><{name}>{power}</{name}><current_power_limit>300.00 W</current_power_limit></{group}>
\t\t<module_power_readings><instant_power_draw>999.00 W</instant_power_draw></module_power_readings>
\t</gpu>"""
        for index, power in enumerate(powers)
    )
    return f"""<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">
<nvidia_smi_log>
\t<timestamp>Sat Jul 26 23:32:{second:02d} 2025</timestamp>{gpus}
</nvidia_smi_log>
"""


def test_xml_documents_in_a_row_are_read(tmp_path: Path) -> None:
    text = document(9, "250.50 W", "N/A") + "GPU is lost\n" + document(10, "251.00 W", "99.00 W")
    staged = stage(text + document(11, "1 W")[:300], tmp_path, Options(tz="UTC"))
    readings = pl.read_parquet(staged.path)
    assert staged.format == "nvidia-smi-xml"
    assert readings["gpu_uuid"].to_list() == ["GPU-0", "GPU-0", "GPU-1", "GPU-1"]
    assert readings["power_mw"].to_list() == [250_500, 251_000, None, 99_000]
    assert readings["power_limit_mw"].unique().to_list() == [300_000]
    assert str(readings["ts"][0]) == "2025-07-26 23:32:09+00:00"
    assert readings["row_no"].to_list() == [5, 25, 12, 32]
    assert staged.faults.skipped == {"last document, cut while it was written": 1}
    assert read(document(9, "250.50 W", old=True), tmp_path, UTC)["power_mw"].to_list() == [250_500]


@pytest.mark.parametrize("text", [DMON, document(9, "250 W", "300 W") + document(10, "1 W", "2 W")])
def test_messages_before_and_between_hide_nothing(text: str, tmp_path: Path) -> None:
    message = "Unable to determine the device handle for GPU 0000:3B:00.0: Unknown Error\n"
    lines = text.splitlines(keepends=True)
    staged = stage(message + "".join(lines[:4]) + message + "".join(lines[4:]), tmp_path)
    assert (staged.readings, staged.faults.count) == (4, 0)


def test_a_damaged_document_is_set_aside(tmp_path: Path) -> None:
    texts = [document(second, "250 W") for second in range(9, 13)]
    texts[1] = texts[1].replace("</uuid>", "")
    staged = stage("".join(texts), tmp_path, Options(tz="UTC"))
    assert (staged.readings, staged.faults.count) == (3, 1)
    assert "not XML" in staged.faults.rows["reason"][0]


def test_entities_are_never_expanded(tmp_path: Path) -> None:
    bomb = document(9, "&b; W").replace(
        "<!DOCTYPE nvidia_smi_log", "<!DOCTYPE x [<!ENTITY b '9'>]><!DOCTYPE nvidia_smi_log"
    )
    with pytest.raises(BadInput, match="not XML: undefined entity"):
        stage(bomb, tmp_path, Options(tz="UTC"))
