"""The pictures of the report: each takes a frame and gives an SVG."""

from __future__ import annotations

import polars as pl

KIND_COLOURS = {"run": "#2f6f4f", "idle": "#c9ced6", "unallocated": "#e0a13c"}
_INK = "#22303c"
_VEGA_LITE = "6.1"
_BARS = 20
"""Runs in the bar chart: the largest ones."""


def _render_svg(chart: object) -> str:
    import altair as alt
    import vl_convert as vlc

    configured = (
        chart.configure(font="Helvetica, Arial, sans-serif")  # type: ignore[attr-defined]
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=_INK,
            titleColor=_INK,
            titleFontWeight="normal",
            gridColor="#e9edf0",
            domain=False,
        )
        .configure_legend(labelColor=_INK, title=None, orient="top")
    )
    assert isinstance(configured, alt.TopLevelMixin)
    # Checking the charts against their schema takes as long as drawing them.
    return str(vlc.vegalite_to_svg(configured.to_json(validate=False), vl_version=_VEGA_LITE))


def draw_power(slots: pl.DataFrame) -> str:
    """Draw mean facility power over time, stacked by kind.

    Args:
        slots: slot_start, kind, power_kw, and rank: the order of kinds from the bottom.
    """
    import altair as alt

    kinds = list(KIND_COLOURS)
    return _render_svg(
        alt.Chart(_inline_data(slots), width=1040, height=230)
        .mark_area(interpolate="step-after")
        .encode(
            x=alt.X("slot_start:T", title=None, axis=alt.Axis(format="%d %b %H:%M", tickCount=8)),
            y=alt.Y("power_kw:Q", title="facility power, kW", stack=True),
            color=alt.Color(
                "kind:N",
                scale=alt.Scale(domain=kinds, range=list(KIND_COLOURS.values())),
            ),
            order=alt.Order("rank:Q"),
        )
    )


def draw_intensity(signals: pl.DataFrame) -> str:
    """Draw carbon intensity over time, with bounds.

    Args:
        signals: slot_start, zone, value, low, high in g CO2e/kWh.
    """
    import altair as alt

    base = alt.Chart(_inline_data(signals), width=1040, height=190)
    time = alt.X("slot_start:T", title=None, axis=alt.Axis(format="%d %b %H:%M", tickCount=8))
    colour = alt.Color("zone:N", scale=alt.Scale(scheme="tableau10"))
    band = base.mark_area(opacity=0.18).encode(
        x=time, y=alt.Y("low:Q", title="g CO2e / kWh"), y2="high:Q", color=colour
    )
    line = base.mark_line(strokeWidth=1.6).encode(x=time, y="value:Q", color=colour)
    return _render_svg(band + line)


def draw_alternatives(shifted: pl.DataFrame) -> str:
    """Draw CO2e of each run by the hour at which it would have started, relative to what it was.

    Args:
        shifted: run_id, zone, shift_h, co2e_kg, location_co2e_kg (what it was); one small picture per
            run.
    """
    import altair as alt

    ratio = shifted.with_columns(ratio=pl.col("co2e_kg") / pl.col("location_co2e_kg"))
    data = _inline_data(ratio)
    x = alt.X("shift_h:Q", title="start, hours later", axis=alt.Axis(tickCount=9, format="+d"))
    y = alt.Y("ratio:Q", title="CO2e, as it was = 100 %", axis=alt.Axis(format="%"))
    base = alt.Chart(width=310, height=150)
    line = base.mark_line(strokeWidth=1.6).encode(
        x=x, y=y, color=alt.Color("zone:N", scale=alt.Scale(scheme="tableau10"))
    )
    unshifted = base.mark_rule(color="#8a97a3", strokeDash=[4, 3]).encode(y=alt.datum(1))
    order = ratio.group_by("run_id").agg(pl.col("location_co2e_kg").first())
    runs = order.sort("location_co2e_kg", "run_id", descending=[True, False])["run_id"].to_list()
    return _render_svg(
        alt.layer(unshifted, line, data=data).facet(
            facet=alt.Facet("run_id:N", title=None, sort=runs), columns=3
        )
    )


def draw_bounded_bars(runs: pl.DataFrame, title: str, colour: str) -> str:
    """Draw one bar per run with low and high, the largest runs first.

    Args:
        runs: label, value, low, high.
        title: Of the axis: what is shown, and its unit.
        colour: Of the bars.
    """
    import altair as alt

    largest = runs.sort("value", "label", descending=[True, False]).head(_BARS)
    base = alt.Chart(_inline_data(largest), width=240, height=alt.Step(26))
    label = alt.Y("label:N", sort=None, title=None, axis=alt.Axis(labelLimit=130))
    bar = base.mark_bar(color=colour, size=14).encode(
        x=alt.X("value:Q", title=title, axis=alt.Axis(tickCount=6)), y=label
    )
    rule = base.mark_rule(color=_INK, strokeWidth=1.4).encode(x="low:Q", x2="high:Q", y=label)
    ends = [
        base.mark_tick(color=_INK, size=9, thickness=1.4).encode(x=f"{end}:Q", y=label)
        for end in ("low", "high")
    ]
    return _render_svg(alt.layer(bar, rule, *ends))


def draw_stacked_bars(parts: pl.DataFrame, title: str, colours: dict[str, str]) -> str:
    """Draw one bar per run, stacked by part, the largest runs first.

    Args:
        parts: label, part, value, rank: the order of parts from the left.
        title: Of the axis: what is shown, and its unit.
        colours: Part -> colour.
    """
    import altair as alt

    totals = parts.group_by("label").agg(pl.col("value").sum())
    order = totals.sort("value", "label", descending=[True, False]).head(_BARS)["label"]
    shown = parts.filter(pl.col("label").is_in(order.implode()))
    return _render_svg(
        alt.Chart(_inline_data(shown), width=240, height=alt.Step(26))
        .mark_bar(size=14)
        .encode(
            x=alt.X("value:Q", title=title, axis=alt.Axis(tickCount=6)),
            y=alt.Y("label:N", sort=order.to_list(), title=None, axis=alt.Axis(labelLimit=130)),
            color=alt.Color(
                "part:N", scale=alt.Scale(domain=list(colours), range=list(colours.values()))
            ),
            order=alt.Order("rank:Q"),
        )
    )


def draw_tornado(moved: pl.DataFrame, title: str, colour: str) -> str:
    """Draw what each input alone moves, the largest on top; one small picture per run.

    Args:
        moved: run_id, input, value, at_low, at_high (the value with the input at its low or high);
            runs in the order of their first row.
        title: Of the axis: what is shown.
        colour: Of the bars.
    """
    import altair as alt

    runs = moved["run_id"].unique(maintain_order=True).to_list()
    inputs = (
        moved.group_by("input")
        .agg(((pl.col("at_high") - pl.col("at_low")).abs() / pl.col("value")).max().alias("swing"))
        .sort("swing", "input", descending=[True, False])["input"]
        .to_list()
    )
    data = _inline_data(
        moved.with_columns(
            low=pl.min_horizontal("at_low", "at_high") / pl.col("value") - 1,
            high=pl.max_horizontal("at_low", "at_high") / pl.col("value") - 1,
        )
    )
    base = alt.Chart(width=250, height=alt.Step(18))
    y = alt.Y("input:N", sort=inputs, title=None, axis=alt.Axis(labelLimit=110))
    x = alt.X("low:Q", title=title, axis=alt.Axis(format="+%", tickCount=5))
    bar = base.mark_bar(color=colour, size=11).encode(x=x, x2="high:Q", y=y)
    middle = base.mark_rule(color=_INK, strokeWidth=1).encode(x=alt.datum(0))
    return _render_svg(
        alt.layer(bar, middle, data=data).facet(
            facet=alt.Facet("run_id:N", title=None, sort=runs), columns=3
        )
    )


def _inline_data(frame: pl.DataFrame) -> object:
    """Inline data; times as UTC text, so that no browser or renderer can shift them."""
    import altair as alt

    text = frame.with_columns(
        pl.col(name).dt.strftime("%Y-%m-%dT%H:%M:%S")
        for name, dtype in frame.schema.items()
        if isinstance(dtype, pl.Datetime)
    )
    return alt.Data(values=text.to_dicts())
