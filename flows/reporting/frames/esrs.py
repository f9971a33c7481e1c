"""ESRS E1 and E3: data points of climate and water."""

from __future__ import annotations

from flows.reporting.frames.model import (
    EMBODIED_REMARK,
    MJ_PER_MWH,
    UG_PER_TONNE,
    UL_PER_M3,
    Entry,
    Frame,
    sum_slots,
)

ESRS = Frame(
    name="esrs",
    title="ESRS E1 (climate) and E3 (water): data points",
    about="Commission Delegated Regulation (EU) 2023/2772, Annex I. Of the period: runs, idle and unallocated. Paragraph numbers are those of the text of 2023; later amendments are not considered.",
    per="period",
    form="table",
    entries=(
        Entry(
            "E1-5 §37: total energy consumption",
            sum_slots("facility{}_mj", MJ_PER_MWH),
            "MWh",
            "Facility energy",
        ),
        Entry(
            "E1-5 §37 (a) to (c): from fossil, nuclear and renewable sources",
            "",
            "MWh",
            "Not in the ledger: it follows from the instruments by which the electricity was bought",
        ),
        Entry(
            "E1-5 §37: of it purchased electricity",
            sum_slots("grid{}_mj", MJ_PER_MWH),
            "MWh",
            "From the grid",
        ),
        Entry(
            "E1-5 §39: own production of energy",
            sum_slots("onsite_mj", MJ_PER_MWH),
            "MWh",
            "Generated on site",
        ),
        Entry(
            "E1-6 §48 (a): gross scope 1",
            sum_slots("co2e_scope1{}_ug", UG_PER_TONNE),
            "t CO2e",
            "On-site generation",
        ),
        Entry(
            "E1-6 §49 (a): gross scope 2, location-based",
            sum_slots("co2e{}_ug", UG_PER_TONNE),
            "t CO2e",
            "Purchased electricity",
        ),
        Entry(
            "E1-6 §49 (b): gross scope 2, market-based",
            sum_slots("co2e_market{}_ug", UG_PER_TONNE),
            "t CO2e",
            "By contracts and residual mix",
        ),
        Entry(
            "E1-6 §51: gross scope 3, of it capital goods",
            sum_slots("co2e_embodied{}_ug", UG_PER_TONNE),
            "t CO2e",
            f"Hardware. {EMBODIED_REMARK}",
        ),
        Entry(
            "E1-6 §51: gross scope 3, of it fuel- and energy-related",
            sum_slots("co2e_losses{}_ug", UG_PER_TONNE),
            "t CO2e",
            "Grid losses, where they are set",
        ),
        Entry(
            "E1-6 §52 (a): total, location-based",
            sum_slots(
                "co2e_scope1{}_ug + co2e{}_ug + co2e_losses{}_ug + co2e_embodied{}_ug", UG_PER_TONNE
            ),
            "t CO2e",
            "Of what the ledger counts",
        ),
        Entry(
            "E1-6 §52 (b): total, market-based",
            sum_slots(
                "co2e_scope1{}_ug + co2e_market{}_ug + co2e_losses{}_ug + co2e_embodied{}_ug",
                UG_PER_TONNE,
            ),
            "t CO2e",
            "Of what the ledger counts",
        ),
        Entry(
            "E3-4 §28 (a): total water consumption",
            sum_slots("water_onsite{}_ul", UL_PER_M3),
            "m³",
            "On site, in own operations",
        ),
        Entry(
            "E3-4 §28 (b): of it in areas at water risk",
            "",
            "m³",
            "Not in the ledger: it follows from where the sites are",
        ),
        Entry(
            "E3, value chain: water consumed in generating the electricity",
            sum_slots("water_offsite{}_ul", UL_PER_M3),
            "m³",
            "Upstream; not in §28",
        ),
        Entry(
            "E3-4, beside it: water withdrawals",
            sum_slots("water_withdrawal{}_ul", UL_PER_M3),
            "m³",
            "On site and in generating the electricity together",
        ),
    ),
)
