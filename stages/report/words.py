"""Numbers as people read them."""

from __future__ import annotations

import math

_EXPONENTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
NONE = "–"


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits: 1,234 · 0.0123 · 4.52·10⁻⁵."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -2:
        return power(value, exponent, max(0, digits - 1))
    decimals = max(0, digits - 1 - exponent)
    return minus(f"{value:,.{decimals}f}")


def power(value: float, exponent: int, decimals: int = 2) -> str:
    """A number as a multiple of a power of ten: 1.25·10⁻⁴."""
    return f"{minus(f'{value / 10.0**exponent:.{decimals}f}')}·10{str(exponent).translate(_EXPONENTS)}"


def signed(value: float | None, digits: int = 3) -> str:
    text = number(value, digits)
    return f"+{text}" if value is not None and value > 0 else text


def minus(text: str) -> str:
    return text.replace("-", "−")


def fixed(value: float | None, decimals: int) -> str:
    return NONE if value is None else minus(f"{value:,.{decimals}f}")


def percent(share: float | None) -> str:
    if share is None:
        return NONE
    # A few in a thousand are neither nobody nor everybody.
    return f"{100 * share:.1f} %" if 0 < share < 0.1 or 0.9 < share < 1 else f"{100 * share:.0f} %"


def seconds(value: float) -> str:
    """12.3 s · 4 min 05 s · 2 h 10 min."""
    if value < 100:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(value: int) -> str:
    """Bytes as MiB or GiB."""
    if not value:
        return NONE
    return f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"


def count(value: int) -> str:
    return f"{value:,}"


def plural(value: int, one: str, many: str | None = None) -> str:
    return f"{value:,} {one if value == 1 else many or one + 's'}"


def common_exponent(values: list[float]) -> int:
    """The power of ten, a multiple of 3 and at most 0, in which these values have digits before the point."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if largest == 0 or largest >= 0.01:
        return 0
    return 3 * math.floor(math.log10(largest) / 3)


def unit(exponent: int) -> str:
    """How an axis names its power of ten."""
    return f" (10{str(exponent).translate(_EXPONENTS)})" if exponent else ""
