"""SVG elements as text, and the style that every drawing shares."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

CSS = """
.chart{--ink:#1c2430;--muted:#566173;--grid:#dfe3ea;--paper:#ffffff;--box:#f4f6f9;
--a:#5b6b82;--b:#c8500a;--c:#1f6fb5;--d:#3d8044;font:13px system-ui,-apple-system,"Segoe UI",sans-serif;fill:var(--ink)}
@media (prefers-color-scheme:dark){.chart{--ink:#e8ebf0;--muted:#a3aebd;--grid:#343c49;--paper:#161a21;--box:#222933;
--a:#9fb0c8;--b:#ff9d57;--c:#6db5f2;--d:#85cd8d}}
.chart .muted{fill:var(--muted)}.chart .small{font-size:11.5px}.chart .strong{font-weight:600}
.chart .halo{paint-order:stroke;stroke:var(--paper);stroke-width:4px;stroke-linejoin:round}
.chart .grid{stroke:var(--grid);fill:none}.chart .axis{stroke:var(--muted);fill:none}
.chart .zero{stroke:var(--ink);stroke-dasharray:3 3;fill:none}
.chart .fill-a{fill:var(--a)}.chart .fill-b{fill:var(--b)}.chart .fill-c{fill:var(--c)}.chart .fill-d{fill:var(--d)}
.chart .line-a,.chart .line-b,.chart .line-c,.chart .line-d{fill:none;stroke-width:2;stroke-linejoin:round}
.chart .line-a{stroke:var(--a)}.chart .line-b{stroke:var(--b)}.chart .line-c{stroke:var(--c)}
.chart .line-d{stroke:var(--d)}.chart .faint{opacity:.32}.chart .thin{stroke-width:1.4}
.chart .paper{fill:var(--paper)}.chart .box{fill:var(--box);stroke:var(--grid)}.chart .track{fill:var(--grid)}
.chart .edge{fill:none;stroke:var(--muted);stroke-width:1.4}.chart .head{fill:var(--muted)}
"""
COLOURS = ("a", "b", "c", "d")


@dataclass(frozen=True)
class Svg:
    """A drawing: its size in user units, its parts, and what it shows in words for those who do not see it."""

    width: float
    height: float
    body: str
    title: str
    description: str

    def inline(self, name: str) -> str:
        """For a page that has `CSS` in its head; `name` makes the ids of title and description unique."""
        return (
            f'<svg class="chart" viewBox="0 0 {self.width:g} {self.height:g}" role="img" '
            f'aria-labelledby="{name}-t {name}-d"><title id="{name}-t">{escape(self.title)}</title>'
            f'<desc id="{name}-d">{escape(self.description)}</desc>{self.body}</svg>'
        )

    def standalone(self, name: str) -> str:
        """A file of its own."""
        opening = f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width:g}" height="{self.height:g}" '
        background = rect(0, 0, self.width, self.height, "paper")
        style = f"<style>{CSS}</style>"
        return self.inline(name).replace("<svg ", opening, 1).replace("</desc>", f"</desc>{style}{background}", 1)


def element(tag: str, content: str = "", **attributes: object) -> str:
    """One element; `class_` is class, other underscores are hyphens; content is SVG already."""
    written = "".join(f" {_name(name)}={quoteattr(_value(value))}" for name, value in attributes.items())
    return f"<{tag}{written}>{content}</{tag}>" if content else f"<{tag}{written}/>"


def text(x: float, y: float, words: str, *, anchor: str = "start", class_: str = "") -> str:
    return element("text", escape(words), x=x, y=y, text_anchor=anchor, class_=class_)


def rect(x: float, y: float, width: float, height: float, class_: str, *, radius: float = 0) -> str:
    return element("rect", x=x, y=y, width=max(width, 0.0), height=max(height, 0.0), rx=radius, class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    return element("path", d=f"M{_value(x1)} {_value(y1)}L{_value(x2)} {_value(y2)}", class_=class_)


def polyline(points: Iterable[tuple[float, float]], class_: str) -> str:
    joined = "L".join(f"{_value(x)} {_value(y)}" for x, y in points)
    return element("path", d=f"M{joined}", class_=class_)


def circle(x: float, y: float, radius: float, class_: str) -> str:
    return element("circle", cx=x, cy=y, r=radius, class_=class_)


def _name(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def _value(value: object) -> str:
    return f"{round(value, 1):g}" if isinstance(value, float) else str(value)
