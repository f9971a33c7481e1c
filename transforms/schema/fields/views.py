"""What is shown: figures in kWh, kg and litres, shares."""

from __future__ import annotations

from transforms.figures import FIGURES, TOTALS, WATER_CONSUMED
from transforms.schema.model import TIMESTAMP, Field, describe_shown

FIELDS: tuple[Field, ...] = (
    *(field for figure in (*FIGURES, *TOTALS) for field in describe_shown(figure)),
    Field("energy_measured_share", "DOUBLE", "Part of energy_kwh that was measured, 0 to 1"),
    Field("host_measured_share", "DOUBLE", "Part of host_kwh that was measured, 0 to 1"),
    Field(
        "facility_measured_share",
        "DOUBLE",
        "Part of facility_kwh whose IT energy was measured, 0 to 1",
    ),
    Field(
        "co2e_measured_share",
        "DOUBLE",
        "Part of co2e_kg with measured energy and a reported intensity, 0 to 1",
    ),
    Field(
        "water_onsite_measured_share",
        "DOUBLE",
        "Part of it that rests on measured energy, 0 to 1",
    ),
    Field(
        "water_offsite_measured_share",
        "DOUBLE",
        "Part of it with measured energy and a reported mix, 0 to 1",
    ),
    Field("gpu_hours", "DOUBLE", "GPU time held, weighted by share", "h"),
    Field("hour_start", TIMESTAMP, "Start of the hour, UTC"),
    Field("runs", "BIGINT", "Number of training runs"),
    Field("counter_share", "DOUBLE", "Part of the energy measured by the counter, 0 to 1"),
    Field("power_share", "DOUBLE", "Part measured by integrating power, 0 to 1"),
    Field("last_sequence", "BIGINT", "Highest number of a segment that is there"),
    Field("present", "BIGINT", "Segments that are there"),
    Field("missing", "BIGINT", "Segments that are missing between the first and the last"),
    Field("first_missing", "BIGINT", "Number of the first that is missing; null where none is"),
    Field("signed_share", "DOUBLE", "Part that rests on readings signed at the meter, 0 to 1"),
    Field(
        "records_seen_share",
        "DOUBLE",
        "Part of the run's records that the collectors of their hosts saw and signed, 0 to 1",
    ),
    Field("gap_share", "DOUBLE", "Part estimated across gaps, 0 to 1"),
    Field("filled_share", "DOUBLE", "Part filled for want of readings, 0 to 1"),
    Field(
        "intensity_reported_share",
        "DOUBLE",
        "Part of the facility energy with a reported intensity, 0 to 1",
    ),
    Field(
        "intensity_estimated_share",
        "DOUBLE",
        "Part with an intensity that the provider estimated, 0 to 1",
    ),
    Field(
        "intensity_fallback_share",
        "DOUBLE",
        "Part with an intensity from a lower tier of the ladder, 0 to 1",
    ),
    Field("energy_share", "DOUBLE", "Part of the run's facility energy, 0 to 1"),
    Field("contracted_share", "DOUBLE", "Part of grid_kwh that contracts cover, 0 to 1"),
    Field("residual_share", "DOUBLE", "Part of grid_kwh counted with a residual mix, 0 to 1"),
    Field("marginal_share", "DOUBLE", "Part of grid_kwh whose marginal rate is known, 0 to 1"),
    Field(
        "cost",
        "DOUBLE",
        "Cost of the facility energy that has a price, in `currency`; null without a tariff",
    ),
    Field("priced_share", "DOUBLE", "Part of the facility energy that has a price, 0 to 1"),
    Field("family", "VARCHAR", "Label `family`: runs under one model; else the run's model"),
    Field(
        "phase",
        "VARCHAR",
        "Label `phase`: training, development, evaluation, inference; training if it has none",
    ),
    Field(
        "outcome",
        "VARCHAR",
        "Of a run: label `outcome`, else from exit code or scheduler (completed, failed, stopped, running, unknown); "
        "of attempts to fetch: fetched, partial (some of it was missing) or failed",
    ),
    Field(
        "functional_unit",
        "VARCHAR",
        "Label `functional_unit`: what the run did (token, step, sample, run)",
    ),
    Field("functional_units", "DOUBLE", "Label `functional_units`: how many of it"),
    Field(
        "sci_g_per_unit",
        "DOUBLE",
        "Software carbon intensity per functional unit: (operational + embodied) / units (ISO/IEC 21031)",
        "g",
    ),
    Field("family_share", "DOUBLE", "Part of the family's facility energy, 0 to 1"),
    Field(
        "idle_facility_kwh",
        "DOUBLE",
        "The run's part of the idle and unallocated facility energy of its sites, by GPU time",
        "kWh",
    ),
    Field("idle_co2e_kg", "DOUBLE", "CO2e of that energy (scope 1 and 2, location-based)", "kg"),
    Field("idle_water_l", "DOUBLE", "Water consumed with that energy, on and off site", "L"),
    Field("input", "VARCHAR", "What alone is moved: a meter, a site's figure, a factor"),
    Field("water_low_ul", "BIGINT", "Water consumed with the input at its low", "µL"),
    Field("co2e_at_low_kg", "DOUBLE", "co2e_total_kg with the input at its low", "kg"),
    Field("water_at_low_l", "DOUBLE", "water_l with the input at its low", "L"),
    Field("water_high_ul", "BIGINT", "Water consumed with the input at its high", "µL"),
    Field("co2e_at_high_kg", "DOUBLE", "co2e_total_kg with the input at its high", "kg"),
    Field("water_at_high_l", "DOUBLE", "water_l with the input at its high", "L"),
    Field("water_l", "DOUBLE", WATER_CONSUMED.meaning, "L"),
    Field("co2e_swing_kg", "DOUBLE", "How much the input alone moves co2e_total_kg", "kg"),
    Field("water_swing_l", "DOUBLE", "How much the input alone moves water_l", "L"),
    Field("overrides", "VARCHAR", "Factors from wattledger.toml that the figures rest on"),
    Field("location_co2e_kg", "DOUBLE", "Location-based CO2e as it was", "kg"),
    Field(
        "difference",
        "DOUBLE",
        "(co2e_kg - location_co2e_kg) / location_co2e_kg: below zero is cleaner",
    ),
    Field("started_would", TIMESTAMP, "When the run would have started, UTC"),
    Field("is_own_zone", "BOOLEAN", "True where it is a zone that the run was in"),
)
