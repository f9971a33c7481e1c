"""codecarbon: the columns of its emissions.csv."""

from __future__ import annotations

from flows.reporting.frames.model import Entry, Frame

CODECARBON = Frame(
    name="codecarbon",
    title="codecarbon: emissions.csv",
    about=(
        "The columns of codecarbon 3's emissions.csv, one line per run, so that programs that read it can read these "
        "figures. Energies are multiplied by the PUE, as codecarbon does; CPU, memory and what the site adds are one figure here."
    ),
    per="run",
    form="csv",
    entries=(
        Entry(
            "timestamp",
            "strftime(ended_at, '%Y-%m-%dT%H:%M:%S')",
            "",
            "End of the run, UTC; of a run that goes on, the end of its last slot",
        ),
        Entry("project_name", "coalesce(name, run_id)", "", "name"),
        Entry("run_id", "run_id", "", "run_id"),
        Entry("experiment_id", "coalesce(family, '')", "", "family"),
        Entry("duration", "duration", "s", "From start to end"),
        Entry("emissions", "emissions", "kg", "Scope 1 and 2, location-based"),
        Entry("emissions_rate", "emissions / nullif(duration, 0)", "kg/s", "emissions / duration"),
        Entry(
            "cpu_power",
            "(it_kwh - energy_kwh) / nullif(duration, 0) * 3.6e6",
            "W",
            "Mean, without PUE",
        ),
        Entry("gpu_power", "energy_kwh / nullif(duration, 0) * 3.6e6", "W", "Mean, without PUE"),
        Entry("ram_power", "0.0", "W", "In cpu_power"),
        Entry("cpu_energy", "(it_kwh - energy_kwh) * pue", "kWh", "(it_kwh - energy_kwh) × PUE"),
        Entry("gpu_energy", "energy_kwh * pue", "kWh", "energy_kwh × PUE"),
        Entry("ram_energy", "0.0", "kWh", "In cpu_energy"),
        Entry("energy_consumed", "facility_kwh", "kWh", "facility_kwh"),
        Entry("water_consumed", "water_onsite_l", "L", "On site, as codecarbon's energy × WUE"),
        Entry("country_name", "''", "", "Not in the ledger"),
        Entry("country_iso_code", "''", "", "Not in the ledger: a zone may be a part of a country"),
        Entry("region", "coalesce(zones, '')", "", "Grid zone"),
        Entry("cloud_provider", "''", "", "Not in the ledger"),
        Entry("cloud_region", "''", "", "Not in the ledger"),
        Entry("os", "''", "", "Not in the ledger"),
        Entry("python_version", "''", "", "Not in the ledger"),
        Entry("codecarbon_version", "'wattledger-' || $version", "", "Version of Wattledger"),
        Entry("cpu_count", "''", "", "Not in the ledger"),
        Entry("cpu_model", "''", "", "Not in the ledger"),
        Entry("gpu_count", "gpus", "", "GPUs that took part"),
        Entry(
            "gpu_model",
            "gpus || ' x ' || coalesce(gpu_models, 'GPU')",
            "",
            "As codecarbon writes it",
        ),
        Entry("longitude", "''", "", "Not in the ledger"),
        Entry("latitude", "''", "", "Not in the ledger"),
        Entry("ram_total_size", "''", "", "Not in the ledger"),
        Entry("tracking_mode", "'machine'", "", "Whole GPUs and hosts, by allocation"),
        Entry("cpu_utilization_percent", "''", "", "Not in the ledger"),
        Entry("gpu_utilization_percent", "''", "", "Not in the ledger"),
        Entry("ram_utilization_percent", "''", "", "Not in the ledger"),
        Entry("ram_used_gb", "''", "", "Not in the ledger"),
        Entry("on_cloud", "'N'", "", "Not in the ledger"),
        Entry("pue", "pue", "", "facility_kwh / it_kwh"),
        Entry("wue", "water_onsite_l / nullif(it_kwh, 0)", "L/kWh", "water_onsite_l / it_kwh"),
    ),
)
