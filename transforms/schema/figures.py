"""Tables of what is computed: the candidate, and what is kept from one computation to the next."""

from __future__ import annotations

from transforms.figures import SUMMED
from transforms.schema.fields import columns
from transforms.schema.model import Table

_SLOT_ENERGY = (
    "counter_mj power_integral_mj gap_mj gap_low_mj gap_high_mj filled_mj filled_low_mj held_us"
)
_FOOTPRINT_VALUES = " ".join(SUMMED)

TABLES: tuple[Table, ...] = (
    Table(
        "gpu_slot",
        "one GPU in one slot",
        "Metered energy, before any attribution",
        columns(
            "gpu_key slot_start counter_mj power_integral_mj gap_mj covered_us gap_us readings counter_resets"
        ),
        key=("gpu_key", "slot_start"),
        role="candidate",
        published="whole",
    ),
    Table(
        "host_slot",
        "one host in one slot",
        "Energy of CPU and memory, before it is shared out over the GPUs of the host",
        columns("host slot_start host_mj host_modelled_mj metered_us"),
        key=("host", "slot_start"),
        role="candidate",
        published="whole",
    ),
    Table(
        "host_energy_slot",
        "one host in one slot",
        "IT energy of a host: GPUs, CPU and memory, and what its site's model adds",
        columns("host slot_start it_mj it_low_mj it_high_mj"),
        key=("host", "slot_start"),
        role="candidate",
        published="whole",
    ),
    Table(
        "energy_slot",
        "one run (or idle, or unallocated) on one GPU in one slot",
        "Attributed energy; adds up to gpu_slot to the millijoule",
        columns(
            f"kind run_id gpu_key slot_start {_SLOT_ENERGY} energy_mj energy_low_mj energy_high_mj measured_mj "
            "filled_us filled_high_mj"
        ),
        key=("kind", "run_id", "gpu_key", "slot_start"),
        role="candidate",
        published="whole",
    ),
    Table(
        "slot_signal",
        "one zone in one slot",
        "Intensities used, and how much of each slot was reported, estimated or filled",
        columns(
            "zone slot_start intensity_g_per_kwh intensity_low_g_per_kwh intensity_high_g_per_kwh series_ppm estimated_ppm fallback_ppm "
            "ewif_l_per_kwh ewif_low_l_per_kwh ewif_high_l_per_kwh ewif_series_ppm "
            "marginal_g_per_kwh marginal_low_g_per_kwh marginal_high_g_per_kwh "
            "residual_g_per_kwh residual_low_g_per_kwh residual_high_g_per_kwh "
            "withdrawal_l_per_kwh withdrawal_low_l_per_kwh withdrawal_high_l_per_kwh"
        ),
        key=("zone", "slot_start"),
        role="candidate",
        published="whole",
    ),
    Table(
        "slot_source",
        "one source of one quantity in one zone and slot",
        "What each intensity rests on: tier of the ladder, feed and source",
        columns("zone slot_start quantity rung feed source is_estimated covered_us"),
        key=("zone", "slot_start", "quantity", "rung", "feed", "source", "is_estimated"),
        role="candidate",
        published="whole",
    ),
    Table(
        "contract_slot",
        "one contract in one slot",
        "What share of its site's grid energy a contract covers",
        columns("contract site slot_start covered_ppm"),
        key=("contract", "site", "slot_start"),
        role="candidate",
        published="whole",
    ),
    Table(
        "footprint_slot",
        "one run (or idle, or unallocated) at one site in one slot",
        "Energy, carbon and water by slot",
        columns(f"kind run_id site zone slot_start gpus {_FOOTPRINT_VALUES}"),
        key=("kind", "run_id", "site", "zone", "slot_start"),
        role="candidate",
        published="whole",
    ),
    Table(
        "run_footprint",
        "one run (or idle, or unallocated)",
        "Energy, carbon and water by run, in integers",
        columns(f"kind run_id first_slot last_slot gpus {_FOOTPRINT_VALUES}"),
        key=("kind", "run_id"),
        role="candidate",
        published="whole",
    ),
    Table(
        "run_alternative",
        "one run at another time or in another zone",
        "What the same energy would have emitted; only finished runs. Null CO2e: not all of that "
        "time is covered by a series",
        columns("run_id zone shift_h covered_ppm co2e_ug"),
        key=("run_id", "zone", "shift_h"),
        role="candidate",
        published="whole",
    ),
    Table(
        "run_sensitivity",
        "one input of one run",
        "Totals of a run (scopes 1 to 3; water consumed) with one input at its low and at its high",
        columns("run_id input co2e_low_ug co2e_high_ug water_low_ul water_high_ul"),
        key=("run_id", "input"),
        role="candidate",
        published="whole",
    ),
    Table(
        "factor_use",
        "one factor that one run rests on",
        "Which factors the figures of each run used",
        columns("kind run_id factor scope origin"),
        key=("kind", "run_id", "factor", "scope"),
        role="candidate",
        published="whole",
    ),
    Table(
        "gpu_embodied",
        "one GPU",
        "Embodied carbon and water of a GPU and its part of the server, per hour held",
        columns(
            "gpu_key gpus_per_server embodied_ug_per_h embodied_low_ug_per_h embodied_high_ug_per_h "
            "embodied_ul_per_h embodied_low_ul_per_h embodied_high_ul_per_h"
        ),
        key=("gpu_key",),
        role="candidate",
        published="whole",
    ),
    Table(
        "conservation",
        "one GPU",
        "Metered energy against attributed + idle + unallocated",
        columns("gpu_key metered_mj attributed_mj idle_mj unallocated_mj difference_mj"),
        key=("gpu_key",),
        role="candidate",
        published="whole",
    ),
    Table(
        "segment_piece",
        "one stretch of one GPU within a slot, of one segment",
        "Readings reduced to unbroken stretches, kept from one computation to the next",
        columns(
            "gpu_key slot readings power_dnj first_t first_p first_c first_averaged "
            "last_t last_p last_c last_averaged segment_key"
        ),
        key=("gpu_key", "slot", "first_t", "segment_key"),
        role="cache",
    ),
    Table(
        "reduced_segment",
        "one segment whose stretches are kept",
        "Which segments are reduced, by which rule, and what their stretches add up to",
        columns("segment_key max_gap_us pieces fingerprint"),
        key=("segment_key",),
        role="cache",
    ),
    Table(
        "device_energy",
        "one run (or idle, unallocated, metered) on one GPU",
        "What each GPU drew, and who held it, in sum: kept up to date by what changes",
        columns(
            "kind run_id gpu_key slots counter_mj power_integral_mj gap_mj filled_mj filled_us held_us"
        ),
        key=("kind", "run_id", "gpu_key"),
        role="candidate",
    ),
    Table(
        "site_energy_slot",
        "one run (or idle, or unallocated) in one host group in one slot",
        "Energy by site before PUE and grid: what the figures of a site are made of",
        columns(
            "kind run_id site host_group slot_start gpus energy_mj energy_low_mj energy_high_mj measured_mj gap_mj "
            "filled_mj host_mj host_measured_mj host_low_mj host_high_mj "
            "co2e_embodied_ug co2e_embodied_low_ug co2e_embodied_high_ug "
            "water_embodied_ul water_embodied_low_ul water_embodied_high_ul held_us metered_us"
        ),
        key=("kind", "run_id", "site", "host_group", "slot_start"),
        role="candidate",
    ),
    Table(
        "computed_segment",
        "one file",
        "Files whose readings the candidate figures are made from",
        columns("segment_key"),
        key=("segment_key",),
        role="made_from",
    ),
    Table(
        "computed_span",
        "one allocation",
        "Allocations as the candidate figures took them; those without an end last until as_of",
        columns("run_id gpu_key from_us to_us share_ppm"),
        key=("run_id", "gpu_key", "from_us"),
        role="made_from",
    ),
    Table(
        "computed_power",
        "one run on one GPU that it held for some time without readings",
        "What the candidate figures took runs to draw in that time, where they were read at other times",
        columns("run_id gpu_key usual_mw"),
        key=("run_id", "gpu_key"),
        role="made_from",
    ),
    Table(
        "computed_device",
        "one device",
        "What the candidate figures took each device to be",
        columns("gpu_key facts"),
        key=("gpu_key",),
        role="made_from",
    ),
    Table(
        "computed_table",
        "one table",
        "What the tables of the candidate add up to, so that the next computation finds them as they were left",
        columns("table_name row_count fingerprint"),
        key=("table_name",),
        role="cache",
    ),
    Table(
        "computed_facts",
        "the last computation",
        "Digest of settings, factors, method and code of the candidate figures",
        columns("facts as_of"),
        key=(),
        role="made_from",
    ),
)
