"""EU AI Act, Annex XI: energy and computational resources of a model."""

from __future__ import annotations

from flows.reporting.frames.model import Entry, Frame

AI_ACT = Frame(
    name="eu-ai-act",
    title="EU AI Act, Annex XI: energy and computational resources of a model",
    about="Regulation (EU) 2024/1689, Annex XI, Section 1, point 2 (d) and (e). One report per family of runs.",
    per="family",
    form="table",
    entries=(
        Entry(
            "2 (e): energy consumption of the model",
            "sum(facility{}_kwh) / 1000",
            "MWh",
            "Facility energy of all its runs: training, development, evaluation, failed ones",
        ),
        Entry(
            "2 (e): of it measured",
            "sum(facility_kwh * facility_measured_share) / nullif(sum(facility_kwh), 0)",
            "share",
            "The rest is estimated; see data_quality and the validation report",
        ),
        Entry(
            "2 (e): of it final training runs that completed",
            "sum(facility{}_kwh) FILTER (phase = 'training' AND outcome = 'completed') / 1000",
            "MWh",
            "Labels `phase` and `outcome`",
        ),
        Entry(
            "2 (d): computational resources",
            "sum(gpu_hours)",
            "GPU-hours",
            "GPU time held, weighted by share",
        ),
        Entry(
            "2 (d): training time",
            "epoch(max(ended_at) - min(started_at)) / 3600",
            "h",
            "From the first start to the last end of its runs; floating point operations are not metered",
        ),
        Entry(
            "CO2e of all scopes counted",
            "sum(co2e_total{}_kg) / 1000",
            "t CO2e",
            "Beyond what the Annex asks",
        ),
        Entry(
            "Water consumed",
            "sum(water_onsite{}_l + water_offsite{}_l) / 1000",
            "m³",
            "Beyond what the Annex asks",
        ),
    ),
)
