"""Hugging Face: the emissions of a model card."""

from __future__ import annotations

from flows.reporting.frames.model import Entry, Frame

HUGGING_FACE = Frame(
    name="hugging-face",
    title="Hugging Face: `co2_eq_emissions` of a model card",
    about="Metadata of a model card, in YAML. One block per run; put it into the card's front matter.",
    per="run",
    form="yaml",
    entries=(
        Entry(
            "emissions",
            "emissions * 1000",
            "g CO2e",
            "Scope 1 and 2, location-based, facility energy; embodied emissions are not in it",
        ),
        Entry(
            "source",
            "'Wattledger ' || $version || ', ' || $publication",
            "",
            "Version and publication",
        ),
        Entry(
            "training_type",
            "coalesce(labels ->> '$.training_type', CASE WHEN phase = 'training' THEN 'pre-training' ELSE phase END)",
            "",
            "Label `training_type` (pre-training, fine-tuning), else the phase",
        ),
        Entry(
            "geographical_location",
            "coalesce(labels ->> '$.location', zones)",
            "",
            "Label `location`, else the grid zone",
        ),
        Entry(
            "hardware_used",
            "gpus || ' x ' || coalesce(gpu_models, 'GPU')",
            "",
            "GPUs that took part",
        ),
    ),
)
