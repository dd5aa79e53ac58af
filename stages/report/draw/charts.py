"""The charts: histogram, scatter, lines, intervals, shares."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stages.evaluate.bootstrap import Interval
from stages.report.draw.axes import HEIGHT, RIGHT, TOP, WIDTH, Frame, Scale, legend, nice_ticks, padded, tick_label
from stages.report.draw.svg import COLOURS, Svg, circle, line, polyline, rect, text
from stages.report.words import common_exponent, fixed, number, percent, unit

_BINS = (8, 36)


def histogram(
    series: Mapping[str, Sequence[float]],
    means: Mapping[str, Interval],
    colours: Mapping[str, str],
    *,
    x_label: str,
    title: str,
) -> Svg:
    """Shares of rows by score, one outline a series, with each mean and its interval above.

    The outermost half per cent on each side is put into the last bins: a heavy tail would leave one bar.
    """
    merged = np.concatenate([np.asarray(values, dtype=np.float64) for values in series.values()])
    low, high = np.percentile(merged, [0.5, 99.5])
    if low == high:
        low, high = padded([float(low)])
    exponent = common_exponent([float(low), float(high)])
    edges = np.linspace(low, high, _bins(merged, low, high) + 1)
    shares = {}
    for name, values in series.items():
        counts, _ = np.histogram(np.clip(np.asarray(values, dtype=np.float64), low, high), edges)
        shares[name] = counts / max(1, len(values))
    top = max(float(share.max()) for share in shares.values()) * 100
    bars = 16.0 * len(series)
    frame = Frame(
        Scale(low / 10.0**exponent, high / 10.0**exponent, 56.0, WIDTH - RIGHT),
        Scale(0.0, top * 1.05, HEIGHT - 46.0, TOP + bars),
    )
    parts = [frame.axes(x_label + unit(exponent), "% of rows")]
    scaled = edges / 10.0**exponent
    for name, share in shares.items():
        outline = [(frame.x(scaled[0]), frame.y(0))]
        for left, right, height in zip(scaled[:-1], scaled[1:], share * 100, strict=True):
            outline += [(frame.x(left), frame.y(height)), (frame.x(right), frame.y(height))]
        outline.append((frame.x(scaled[-1]), frame.y(0)))
        parts.append(polyline(outline, f"fill-{colours[name]} faint"))
        parts.append(polyline(outline, f"line-{colours[name]} thin"))
    if low < 0 < high:
        parts.append(line(frame.x(0), frame.y.start, frame.x(0), TOP - 8, "zero"))
    for index, name in enumerate(series):
        colour, mean = colours[name], means[name]
        y = TOP + 4 + 16.0 * index
        ends = [min(max(each / 10.0**exponent, frame.x.low), frame.x.high) for each in (mean.low, mean.high)]
        parts.append(line(frame.x(ends[0]), y, frame.x(ends[1]), y, f"line-{colour}"))
        parts.append(circle(frame.x(mean.value / 10.0**exponent), y, 4.5, f"fill-{colour}"))
    parts.append(legend([(colours[name], name) for name in series], WIDTH))
    said = "; ".join(f"{name}: {len(values)} rows, mean {number(means[name].value)}" for name, values in series.items())
    return Svg(WIDTH, HEIGHT, "".join(parts), title, f"{said}. Dots are means, bars through them their intervals.")


def _bins(values: np.ndarray, low: float, high: float) -> int:
    """Freedman and Diaconis's rule, within what a small chart can show."""
    quarter, three = np.percentile(values, [25, 75])
    width = 2 * (three - quarter) / len(values) ** (1 / 3)
    wanted = math.ceil((high - low) / width) if width > 0 else _BINS[0]
    return min(max(wanted, _BINS[0]), _BINS[1])


def scatter(x: Sequence[float], y: Sequence[float], *, x_label: str, y_label: str, title: str) -> Svg:
    """Two measurements of the same things, with the line on which they agree."""
    exponent = common_exponent([*x, *y])
    scaled = [[value / 10.0**exponent for value in values] for values in (x, y)]
    bounds = padded([*scaled[0], *scaled[1]])
    frame = Frame.of(bounds, bounds)
    parts = [frame.axes(x_label + unit(exponent), y_label + unit(exponent))]
    parts.append(line(frame.x(bounds[0]), frame.y(bounds[0]), frame.x(bounds[1]), frame.y(bounds[1]), "zero"))
    parts += [circle(frame.x(a), frame.y(b), 3.6, "fill-c") for a, b in zip(*scaled, strict=True)]
    description = f"{len(x)} points; on the dashed line both agree."
    return Svg(WIDTH, HEIGHT, "".join(parts), title, description)


@dataclass(frozen=True)
class Line:
    """A curve and its colour letter."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str = "a"


def lines(curves: Sequence[Line], *, x_label: str, y_label: str, title: str) -> Svg:
    """Curves over steps: each faint as measured, and in full colour its running mean."""
    xs = [x for curve in curves for x, _ in curve.points]
    ys = [y for curve in curves for _, y in curve.points]
    low, high = min(xs), max(xs)
    frame = Frame.of((low, high if high > low else low + 1), padded(ys))
    parts = [frame.axes(x_label, y_label, x_whole=True)]
    for curve in curves:
        points = [(frame.x(x), frame.y(y)) for x, y in curve.points]
        if len(points) == 1:
            parts.append(circle(*points[0], 4, f"fill-{curve.colour}"))
            continue
        parts.append(polyline(points, f"line-{curve.colour} thin faint"))
        smooth = running_mean([y for _, y in curve.points])
        centre = [(frame.x(x), frame.y(y)) for (x, _), y in zip(curve.points, smooth, strict=True)]
        parts.append(polyline(centre, f"line-{curve.colour}"))
    if len(curves) > 1:
        parts.append(legend([(curve.colour, curve.name) for curve in curves], WIDTH))
    ends = "; ".join(f"{c.name} from {number(c.points[0][1])} to {number(c.points[-1][1])}" for c in curves)
    return Svg(WIDTH, HEIGHT, "".join(parts), title, ends)


def running_mean(values: Sequence[float]) -> list[float]:
    """Centred mean over about a tenth of the values, fewer at the ends."""
    reach = len(values) // 20
    return [float(np.mean(values[max(0, index - reach) : index + reach + 1])) for index in range(len(values))]


def intervals(rows: Sequence[tuple[str, Interval, str]], *, x_label: str, title: str, zero: bool = False) -> Svg:
    """Estimates with their intervals, one under the other; each row is (name, interval, colour letter)."""
    bounds = [each for _, interval, _ in rows for each in (interval.low, interval.high)] + ([0.0] if zero else [])
    exponent = common_exponent(bounds)
    height = 74.0 + 44.0 * len(rows)
    x = Scale(*padded([each / 10.0**exponent for each in bounds], 0.12), 18.0, WIDTH - 18.0)
    ticks = nice_ticks(x.low, x.high)
    bottom = height - 46
    parts = []
    for tick in ticks:
        parts.append(line(x(tick), 10.0, x(tick), bottom, "grid"))
        parts.append(text(x(tick), bottom + 18, tick_label(tick, ticks), anchor="middle", class_="muted small"))
    if zero:
        parts.append(line(x(0), 10.0, x(0), bottom, "zero"))
    for index, (name, interval, colour) in enumerate(rows):
        y = 48.0 + 44.0 * index
        low, value, high = (each / 10.0**exponent for each in (interval.low, interval.value, interval.high))
        parts.append(text(18.0, y - 17, name, class_="strong halo"))
        said = f"{fixed(interval.value, 4)}  [{fixed(interval.low, 4)}, {fixed(interval.high, 4)}]"
        parts.append(text(WIDTH - 18, y - 17, said, anchor="end", class_="muted small halo"))
        parts.append(line(x(low), y, x(high), y, f"line-{colour}"))
        parts += [line(x(end), y - 5, x(end), y + 5, f"line-{colour}") for end in (low, high)]
        parts.append(circle(x(value), y, 5, f"fill-{colour}"))
    parts.append(text(WIDTH / 2, bottom + 37, x_label + unit(exponent), anchor="middle", class_="small"))
    said = "; ".join(
        f"{name} {fixed(each.value, 4)}, interval {fixed(each.low, 4)} to {fixed(each.high, 4)}"
        for name, each, _ in rows
    )
    return Svg(WIDTH, height, "".join(parts), title, said)


def stacked(rows: Sequence[tuple[str, Mapping[str, float]]], *, title: str, colours: Sequence[str] = COLOURS) -> Svg:
    """Bars that each make up 100 %, with the shares written under them: rows of (name, share by part)."""
    height = 12.0 + 74.0 * len(rows)
    parts = []
    for index, (name, shares) in enumerate(rows):
        y = 18.0 + 74.0 * index
        parts.append(text(0.0, y, name, class_="strong"))
        x = 0.0
        for colour, share in zip(colours, shares.values(), strict=False):
            parts.append(rect(x, y + 9, share * WIDTH - 1.5, 18.0, f"fill-{colour}", radius=2))
            x += share * WIDTH
        parts.append(_key(list(shares.items()), y + 45, colours))
    said = "; ".join(
        f"{name}: " + ", ".join(f"{part} {percent(share)}" for part, share in shares.items()) for name, shares in rows
    )
    return Svg(WIDTH, height, "".join(parts), title, said)


def _key(shares: Sequence[tuple[str, float]], y: float, colours: Sequence[str]) -> str:
    parts = []
    step = WIDTH / max(1, len(shares))
    for index, (colour, (part, share)) in enumerate(zip(colours, shares, strict=False)):
        parts.append(rect(step * index, y - 9, 10.0, 10.0, f"fill-{colour}", radius=2))
        parts.append(text(step * index + 15, y, f"{part} {percent(share)}", class_="small"))
    return "".join(parts)
