"""Scales, ticks and the frame of a chart."""

from __future__ import annotations

import math
from dataclasses import dataclass

from stages.report.draw.svg import line, rect, text
from stages.report.words import minus

WIDTH, HEIGHT = 460.0, 290.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 14.0, 40.0, 46.0


@dataclass(frozen=True)
class Scale:
    """A linear map from [low, high] to [start, stop]."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)

    def ticks(self, wanted: int = 5) -> list[float]:
        return nice_ticks(self.low, self.high, wanted)


def nice_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten inside [low, high], about `wanted` of them."""
    raw = (high - low) / max(wanted, 1)
    base = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * base for factor in (1, 2, 2.5, 5, 10) if factor * base >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def padded(values: list[float], share: float = 0.06) -> tuple[float, float]:
    """The range of the values with some room on either side; never empty."""
    low, high = min(values), max(values)
    room = (high - low) * share or abs(high) * 0.1 or 1.0
    return low - room, high + room


@dataclass(frozen=True)
class Frame:
    """The plotting area of a chart with labelled axes."""

    x: Scale
    y: Scale

    @staticmethod
    def of(
        x: tuple[float, float],
        y: tuple[float, float],
        *,
        width: float = WIDTH,
        height: float = HEIGHT,
        left: float = LEFT,
    ) -> Frame:
        return Frame(Scale(*x, left, width - RIGHT), Scale(*y, height - BOTTOM, TOP))

    def axes(self, x_label: str, y_label: str, *, x_whole: bool = False, y_ticks: bool = True) -> str:
        parts = []
        if y_ticks:
            ticks = self.y.ticks()
            for tick in ticks:
                parts.append(line(self.x.start, self.y(tick), self.x.stop, self.y(tick), "grid"))
                label = tick_label(tick, ticks)
                parts.append(text(self.x.start - 7, self.y(tick) + 4, label, anchor="end", class_="muted small"))
        ticks = [tick for tick in self.x.ticks() if not x_whole or tick == int(tick)]
        for tick in ticks:
            label = tick_label(tick, ticks)
            parts.append(line(self.x(tick), self.y.start, self.x(tick), self.y.start + 4, "axis"))
            parts.append(text(self.x(tick), self.y.start + 18, label, anchor="middle", class_="muted small"))
        parts.append(line(self.x.start, self.y.start, self.x.stop, self.y.start, "axis"))
        middle = (self.x.start + self.x.stop) / 2
        parts.append(text(middle, self.y.start + 37, x_label, anchor="middle", class_="small"))
        parts.append(text(8.0, 16.0, y_label, class_="small"))
        return "".join(parts)


def tick_label(tick: float, ticks: list[float]) -> str:
    step = abs(ticks[1] - ticks[0]) if len(ticks) > 1 else abs(tick) or 1.0
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if decimals and round(step, decimals) != round(step, 10):
        decimals += 1  # a step of 2.5 needs one more
    return minus(f"{tick:,.{decimals}f}" if tick else "0")


def legend(names: list[tuple[str, str]], width: float) -> str:
    """Swatches with names at the top right; `names` are (colour letter, name)."""
    parts = []
    x = width - RIGHT
    for colour, name in reversed(names):
        x -= 6.6 * len(name)
        parts.append(text(x, 16.0, name, class_="small"))
        x -= 16
        parts.append(rect(x, 7.0, 11.0, 11.0, f"fill-{colour}", radius=2))
        x -= 12
    return "".join(parts)
