"""GHG Protocol: an inventory by scope."""

from __future__ import annotations

from flows.reporting.frames.model import (
    EMBODIED_REMARK,
    MJ_PER_MWH,
    UG_PER_TONNE,
    Entry,
    Frame,
    sum_slots,
)

GHG_PROTOCOL = Frame(
    name="ghg-protocol",
    title="GHG Protocol: inventory by scope",
    about="Corporate Standard, Scope 2 Guidance, Corporate Value Chain Standard. Of the period: runs, idle and unallocated.",
    per="period",
    form="table",
    entries=(
        Entry(
            "Scope 1", sum_slots("co2e_scope1{}_ug", UG_PER_TONNE), "t CO2e", "Generation on site"
        ),
        Entry(
            "Scope 2, location-based",
            sum_slots("co2e{}_ug", UG_PER_TONNE),
            "t CO2e",
            "Purchased electricity",
        ),
        Entry(
            "Scope 2, market-based",
            sum_slots("co2e_market{}_ug", UG_PER_TONNE),
            "t CO2e",
            "By contracts and residual mix; beside the location-based figure, never added to it",
        ),
        Entry(
            "Scope 3, category 2: capital goods",
            sum_slots("co2e_embodied{}_ug", UG_PER_TONNE),
            "t CO2e",
            f"Hardware. {EMBODIED_REMARK}",
        ),
        Entry(
            "Scope 3, category 3: fuel- and energy-related activities",
            sum_slots("co2e_losses{}_ug", UG_PER_TONNE),
            "t CO2e",
            "Grid losses, where `transmission_loss` is set. What is upstream of fuels is in life-cycle "
            "intensities (scope 2 here) unless the zone's signal is average_direct",
        ),
        Entry(
            "Electricity from the grid", sum_slots("grid{}_mj", MJ_PER_MWH), "MWh", "Activity data"
        ),
        Entry(
            "Electricity generated on site",
            sum_slots("onsite_mj", MJ_PER_MWH),
            "MWh",
            "Activity data",
        ),
    ),
)
