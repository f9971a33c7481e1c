"""What is computed: figures as stored, in integers."""

from __future__ import annotations

from transforms.figures import FIGURES
from transforms.schema.model import TIMESTAMP, Field, describe_stored

FIELDS: tuple[Field, ...] = (
    *(
        field
        for figure in FIGURES
        for field in describe_stored(figure)
        if field.name != "energy_mj"  # Readings have it too, of other devices.
    ),
    Field("slot_start", TIMESTAMP, "Start of the 5-minute slot, UTC"),
    Field("counter_mj", "BIGINT", "Measured by the energy counter", "mJ"),
    Field("power_integral_mj", "BIGINT", "Measured by integrating power", "mJ"),
    Field("gap_low_mj", "BIGINT", "Lower bound of gap_mj: the GPU at idle", "mJ"),
    Field("gap_high_mj", "BIGINT", "Upper bound of gap_mj: the GPU at its limit", "mJ"),
    Field("filled_us", "BIGINT", "GPU time that a run held and nobody read", "µs"),
    Field("filled_high_mj", "BIGINT", "Upper bound of filled_mj: the GPU at its limit", "mJ"),
    Field("usual_mw", "BIGINT", "Mean power of the run where it was read", "mW"),
    Field("filled_low_mj", "BIGINT", "Lower bound of filled_mj: the GPU at idle", "mJ"),
    Field("covered_us", "BIGINT", "GPU time between readings", "µs"),
    Field("gap_us", "BIGINT", "GPU time bridged by an estimate", "µs"),
    Field("readings", "BIGINT", "Readings in the slot"),
    Field("metered_mj", "BIGINT", "Energy seen by the meters: counter + power + gap", "mJ"),
    Field("attributed_mj", "BIGINT", "Part of metered_mj that runs hold", "mJ"),
    Field("idle_mj", "BIGINT", "Part of metered_mj of GPUs that no run held", "mJ"),
    Field(
        "unallocated_mj",
        "BIGINT",
        "Part of metered_mj that no share of a shared GPU covers",
        "mJ",
    ),
    Field("difference_mj", "BIGINT", "metered - attributed - idle - unallocated: always 0", "mJ"),
    Field("host_modelled_mj", "BIGINT", "Part of host_mj that a model gave", "mJ"),
    Field("metered_us", "BIGINT", "Time for which CPU or memory are known", "µs"),
    Field("series_ppm", "INTEGER", "Share of the slot covered by reported intensities", "ppm"),
    Field(
        "estimated_ppm",
        "INTEGER",
        "Share covered by intensities that the provider estimated",
        "ppm",
    ),
    Field(
        "ewif_series_ppm",
        "INTEGER",
        "Share of the slot whose EWIF comes from a reported generation mix",
        "ppm",
    ),
    Field(
        "fallback_ppm",
        "INTEGER",
        "Share covered by a lower tier of the ladder (see slot_source)",
        "ppm",
    ),
    Field("gpus", "BIGINT", "GPUs that took part"),
    Field("first_slot", TIMESTAMP, "First slot with energy, UTC"),
    Field("last_slot", TIMESTAMP, "Last slot with energy, UTC"),
)
