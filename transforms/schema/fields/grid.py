"""What is configured and fetched: the grid, sites, factors."""

from __future__ import annotations

from transforms.schema.model import TIMESTAMP, Field, bounded

FIELDS: tuple[Field, ...] = (
    # grid
    Field("valid_from", TIMESTAMP, "Start of validity, UTC; null = always"),
    Field("valid_to", TIMESTAMP, "End of validity (exclusive), UTC; null = for ever"),
    Field("signal", "VARCHAR", "average_lifecycle, average_direct, marginal or residual_mix"),
    *bounded("intensity", "_g_per_kwh", "DOUBLE", "Carbon intensity", "g CO2e/kWh"),
    *bounded("ewif", "_l_per_kwh", "DOUBLE", "Water consumed in generation per kWh", "L/kWh"),
    Field("source", "VARCHAR", "Who says so"),
    Field("is_estimated", "BOOLEAN", "True where the provider marks the value as its own estimate"),
    Field("fetched_at", TIMESTAMP, "When the value was obtained, UTC"),
    Field("fuel", "VARCHAR", "Fuel or technology, in Wattledger's names (see factor)"),
    Field("generation_kw", "BIGINT", "Mean generation during the interval", "kW"),
    Field(
        "feed",
        "VARCHAR",
        "Where the zone gets it from: the name of an [[input.grid_api]], or `file`",
    ),
    Field("provider", "VARCHAR", "Provider that was asked"),
    Field("first_attempt_at", TIMESTAMP, "First of these attempts, UTC"),
    Field("last_attempt_at", TIMESTAMP, "Last of these attempts, UTC"),
    Field("attempts", "BIGINT", "Attempts in a row with the same outcome"),
    Field("intervals", "BIGINT", "Intervals that the last attempt gave"),
    Field("changed", "BIGINT", "Rows that these attempts added or revised"),
    Field(
        "rung",
        "VARCHAR",
        "Step of the ladder: live, cached, profile, configured, country_year or world",
    ),
    Field("quantity", "VARCHAR", "intensity, ewif, marginal or residual"),
    Field("country", "VARCHAR", "Country of the zone, ISO 3166-1 alpha-2"),
    Field("ladder", "VARCHAR", "Rungs allowed for the zone, best first"),
    Field("loss", "DOUBLE", "Share of generation lost in transmission and distribution"),
    Field("loss_low", "DOUBLE", "Its lower bound"),
    Field("loss_high", "DOUBLE", "Its upper bound"),
    Field("contract", "VARCHAR", "Contract for electricity, from wattledger.toml"),
    Field("position", "INTEGER", "Place among the contracts; earlier ones are used first"),
    Field("instrument", "VARCHAR", "ppa, certificate or tariff"),
    Field("matching", "VARCHAR", "hourly or annual"),
    Field("share", "DOUBLE", "Share of the site's grid energy that it covers, 0 to 1"),
    *bounded("marginal", "_g_per_kwh", "DOUBLE", "Marginal emissions rate", "g CO2/kWh"),
    *bounded("residual", "_g_per_kwh", "DOUBLE", "Intensity of the residual mix", "g CO2e/kWh"),
    Field("year", "INTEGER", "Year that the value describes, or of its publication"),
    Field("onsite_share", "DOUBLE", "Share of the facility energy generated on site, 0 to 1"),
    Field("onsite_share_low", "DOUBLE", "Its lower bound"),
    Field("onsite_share_high", "DOUBLE", "Its upper bound"),
    *bounded(
        "onsite", "_g_per_kwh", "DOUBLE", "Direct emissions of on-site generation", "g CO2e/kWh"
    ),
    *bounded("onsite", "_l_per_kwh", "DOUBLE", "Water consumed by on-site generation", "L/kWh"),
    Field(
        "shift_h",
        "INTEGER",
        "Hours by which the run would have started later; negative: earlier",
        "h",
    ),
    Field(
        "covered_ppm",
        "INTEGER",
        "Share of the grid energy that is covered: by the contract, or by a series",
        "ppm",
    ),
    # sites and factors
    Field(
        "pue",
        "DOUBLE",
        "Power usage effectiveness: facility energy per IT energy (ISO/IEC 30134-2)",
    ),
    Field("pue_low", "DOUBLE", "Its lower bound"),
    Field("pue_high", "DOUBLE", "Its upper bound"),
    *bounded(
        "wue",
        "_l_per_kwh",
        "DOUBLE",
        "Water usage effectiveness: litres per kWh of IT energy (ISO/IEC 30134-9)",
        "L/kWh",
    ),
    *bounded(
        "overhead",
        "_mw_per_gpu",
        "BIGINT",
        "Power of CPU, memory, network and fans per GPU, where the host is not metered",
        "mW",
    ),
    *bounded(
        "rest",
        "_mw_per_gpu",
        "BIGINT",
        "Power of what is neither GPU, CPU nor memory per GPU, where CPU and memory are metered",
        "mW",
    ),
    Field("factor", "VARCHAR", "Name of the factor"),
    Field(
        "scope",
        "VARCHAR",
        "What it applies to: a fuel, a GPU model, a zone or `default`; of a meter, host or site",
    ),
    Field("value", "DOUBLE", "Central value, in `unit`"),
    Field("low", "DOUBLE", "Lower bound, in `unit`"),
    Field("high", "DOUBLE", "Upper bound, in `unit`"),
    Field("unit", "VARCHAR", "Unit of value, low and high"),
    Field("licence", "VARCHAR", "Terms of the source"),
    Field("origin", "VARCHAR", "`shipped` or `override` (from wattledger.toml)"),
)
