"""Charts of estimates with their intervals: over a number, and distributions one under the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.evaluate.bootstrap import Interval
from stages.report.draw.axes import HEIGHT, WIDTH, Frame, Scale, legend, nice_ticks, padded, tick_label
from stages.report.draw.svg import Svg, circle, line, polyline, rect, text
from stages.report.words import common_exponent, number, unit

_ASIDE = 5.0  # between series at the same x
_QUANTILES = (5, 25, 50, 75, 95)


@dataclass(frozen=True)
class Point:
    """An estimate at x; `label` is written beside it."""

    x: float
    estimate: Interval
    label: str = ""


@dataclass(frozen=True)
class Series:
    """Points of one colour, joined by a line unless they are `apart`."""

    name: str
    points: Sequence[Point]
    colour: str = "a"
    apart: bool = False


def points(series: Sequence[Series], *, x_label: str, y_label: str, title: str) -> Svg:
    """Estimates with their intervals over a number. Each series needs a point."""
    every = [point for each in series for point in each.points]
    bounds = [value for point in every for value in (point.estimate.low, point.estimate.high)]
    exponent = common_exponent(bounds)
    scale = 10.0**exponent
    frame = Frame.of(padded([point.x for point in every], 0.08), padded([each / scale for each in bounds], 0.1))
    parts = [frame.axes(x_label, y_label + unit(exponent))]
    for place, each in enumerate(series):
        # Side by side: bars at the same x would hide one another.
        aside = 0.0 if each.apart else _ASIDE * (place - (len(series) - 1) / 2)
        at = [(frame.x(point.x) + aside, frame.y(point.estimate.value / scale)) for point in each.points]
        if len(at) > 1 and not each.apart:
            parts.append(polyline(at, f"line-{each.colour} thin"))
        for point, (x, y) in zip(each.points, at, strict=True):
            low, high = frame.y(point.estimate.low / scale), frame.y(point.estimate.high / scale)
            parts.append(line(x, low, x, high, f"line-{each.colour}"))
            parts.append(circle(x, y, 4.5, f"fill-{each.colour}"))
            if point.label:
                right = x > (frame.x.start + frame.x.stop) / 2
                anchor, beside = ("end", x - 8) if right else ("start", x + 8)
                # In turn above and below: estimates that are close together have labels that are not.
                level = y - 7 if place % 2 else y + 16
                parts.append(text(beside, level, point.label, anchor=anchor, class_="small halo"))
    if len(series) > 1 and not any(point.label for point in every):
        parts.append(legend([(each.colour, each.name) for each in series], WIDTH))
    said = "; ".join(
        f"{point.label or each.name} at {number(point.x)}: {number(point.estimate.value)} "
        f"({number(point.estimate.low)} to {number(point.estimate.high)})"
        for each in series
        for point in each.points
    )
    return Svg(WIDTH, HEIGHT, "".join(parts), title, said)


@dataclass(frozen=True)
class Box:
    """A distribution with the interval of its mean."""

    name: str
    values: Sequence[float]
    mean: Interval
    colour: str = "a"


def boxes(rows: Sequence[Box], *, x_label: str, title: str) -> Svg:
    """Distributions one under the other: 90 % of the rows as a line, half of them as a bar, the median as a tick, the
    mean with its interval as a dot with a line under it."""
    quantiles = [np.percentile(np.asarray(row.values, dtype=np.float64), _QUANTILES) for row in rows]
    bounds = [0.0, *(float(each) for found in quantiles for each in (found[0], found[-1]))]
    exponent = common_exponent(bounds)
    scale = 10.0**exponent
    height = 70.0 + 46.0 * len(rows)
    bottom = height - 46
    x = Scale(*padded([each / scale for each in bounds]), 18.0, WIDTH - 18.0)
    ticks = nice_ticks(x.low, x.high)
    parts = []
    for tick in ticks:
        parts.append(line(x(tick), 10.0, x(tick), bottom, "grid"))
        parts.append(text(x(tick), bottom + 18, tick_label(tick, ticks), anchor="middle", class_="muted small"))
    parts.append(line(x(0), 10.0, x(0), bottom, "zero"))
    for index, (row, found) in enumerate(zip(rows, quantiles, strict=True)):
        y = 44.0 + 46.0 * index
        low, first, middle, third, high = (x(float(each) / scale) for each in found)
        mean = [min(max(each / scale, x.low), x.high) for each in (row.mean.low, row.mean.value, row.mean.high)]
        parts.append(text(18.0, y - 14, row.name, class_="strong halo"))
        parts.append(line(low, y, high, y, f"line-{row.colour} thin"))
        parts.append(rect(first, y - 6, max(third - first, 1.0), 12.0, f"fill-{row.colour} faint"))
        parts.append(line(middle, y - 8, middle, y + 8, f"line-{row.colour}"))
        parts.append(line(x(mean[0]), y + 12, x(mean[2]), y + 12, f"line-{row.colour}"))
        parts.append(circle(x(mean[1]), y + 12, 3.6, f"fill-{row.colour}"))
    parts.append(text(WIDTH / 2, bottom + 37, x_label + unit(exponent), anchor="middle", class_="small"))
    said = "; ".join(
        f"{row.name}: {len(row.values)} rows, median {number(float(found[2]))}, half of them from "
        f"{number(float(found[1]))} to {number(float(found[3]))}"
        for row, found in zip(rows, quantiles, strict=True)
    )
    return Svg(WIDTH, height, "".join(parts), title, said)
