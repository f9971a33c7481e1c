"""Reporting frames: the published figures in the forms that others ask for (docs/frames.md).

Each frame is a module that lists its entries, and an entry is where a figure comes from: the queries
and the page of docs are made from the same list.
"""

from __future__ import annotations

from flows.reporting.frames.ai_act import AI_ACT
from flows.reporting.frames.codecarbon import CODECARBON
from flows.reporting.frames.esrs import ESRS
from flows.reporting.frames.ghg_protocol import GHG_PROTOCOL
from flows.reporting.frames.hugging_face import HUGGING_FACE

FRAMES = {frame.name: frame for frame in (GHG_PROTOCOL, ESRS, AI_ACT, HUGGING_FACE, CODECARBON)}
