"""The run as a picture: nodes in lanes (iterations, branches), arrows for what goes into what.

The layout is made along a main and a cross axis, so that a wide screen gets lanes as rows and a narrow one lanes as
columns. An edge that a longer path implies is left out: prepare feeds nearly everything, and arrows saying so would
hide the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stages.report.draw.svg import Svg, element, rect, text

BOX = (104.0, 60.0)  # width, height of a node
GAP = 18.0  # along the main axis
LABEL = 22.0
TRACK = 8.0
Edge = tuple[str, str]
Point = tuple[float, float]


@dataclass(frozen=True)
class LoopNode:
    """A node as it is drawn: its lane (empty for a shared one), words, and its time against the longest node's."""

    name: str
    lane: str
    title: str
    lines: Sequence[str]
    share: float


@dataclass(frozen=True)
class _Place:
    lane: int
    column: int


def reduced(edges: Sequence[Edge]) -> list[Edge]:
    """The edges without those that a longer path implies (transitive reduction of an acyclic graph)."""
    targets: dict[str, set[str]] = {}
    for source, target in edges:
        targets.setdefault(source, set()).add(target)

    def reachable(start: str) -> set[str]:
        found: set[str] = set()
        waiting = [start]
        while waiting:
            for each in targets.get(waiting.pop(), ()):
                if each not in found:
                    found.add(each)
                    waiting.append(each)
        return found

    below = {source: {each: reachable(each) for each in found} for source, found in targets.items()}
    return [
        (source, target)
        for source, target in dict.fromkeys(edges)
        if not any(target in below[source][other] for other in targets[source] if other != target)
    ]


def draw_loop(nodes: Sequence[LoopNode], edges: Sequence[Edge], *, across: bool, title: str) -> Svg:
    """The picture; `across` puts time from left to right, else from top to bottom. Nodes come in dependency order."""
    kept = reduced(edges)
    places = _places(nodes, edges)
    return _Drawing(nodes, kept, places, across=across).svg(title)


def _places(nodes: Sequence[LoopNode], edges: Sequence[Edge]) -> dict[str, _Place]:
    lanes = list(dict.fromkeys(node.lane for node in nodes if node.lane)) or [""]
    places: dict[str, _Place] = {}
    taken: set[_Place] = set()
    for node in nodes:
        before = [places[source] for source, target in edges if target == node.name and source in places]
        if node.lane:
            lane = lanes.index(node.lane)
            column = 1 + max((each.column for each in before if each.lane == lane), default=0)
        elif before:
            lane = _last_lane_but(before, lanes)
            column = 1 + max(each.column for each in before)
        else:
            lane, column = 0, 0
        while _Place(lane, column) in taken:
            column += 1
        places[node.name] = _Place(lane, column)
        taken.add(places[node.name])
    return places


def _last_lane_but(before: Sequence[_Place], lanes: Sequence[str]) -> int:
    """The lane of a shared node: that of what it needs, the run's own branch before a compared one."""
    found = sorted({each.lane for each in before})
    return found[-2] if len(found) > 1 and found[-1] == len(lanes) - 1 else found[-1]


class _Drawing:
    """One layout. Points are (main, cross) until they are written."""

    def __init__(
        self, nodes: Sequence[LoopNode], edges: Sequence[Edge], places: dict[str, _Place], *, across: bool
    ) -> None:
        self.nodes, self.edges, self.places, self.across = nodes, edges, places, across
        self.main, self.cross = BOX if across else BOX[::-1]
        self.lanes = 1 + max(place.lane for place in places.values())
        self.columns = 1 + max(place.column for place in places.values())
        self.names = {places[node.name].lane: node.lane for node in nodes if node.lane}
        self.tracks = [0] * self.lanes  # used in the gap behind each lane
        self.routes = {edge: self._tracked(edge) for edge in edges}
        self.used = [0] * self.lanes

    def svg(self, title: str) -> Svg:
        arrows = "".join(self._arrow(edge) for edge in self.edges)
        boxes = "".join(self._box(node) for node in self.nodes)
        labels = "".join(self._lane_label(lane, name) for lane, name in self.names.items())
        length = self._start(self.columns) - GAP + 2
        breadth = self._lane(self.lanes)
        said = "; ".join(f"{node.name}: {', '.join(node.lines)}" for node in self.nodes)
        width, height = (length, breadth) if self.across else (breadth, length)
        return Svg(width, height, arrows + boxes + labels, title, said)

    # Where things are

    def _start(self, column: int) -> float:
        head = 2.0 if self.across else LABEL
        return head + column * (self.main + GAP)

    def _lane(self, lane: int) -> float:
        head = LABEL if self.across else 2.0
        gaps = sum(
            (LABEL if self.across else 10.0) + (TRACK * (count + 1) if count else 4.0) for count in self.tracks[:lane]
        )
        return head + lane * self.cross + gaps

    def _tracked(self, edge: Edge) -> bool:
        """Whether an edge runs in the gap between lanes; counts it there."""
        source, target = (self.places[each] for each in edge)
        if source.lane > target.lane:
            return False
        if source.lane == target.lane and target.column == source.column + 1:
            return False
        self.tracks[source.lane] += 1
        if target.lane > source.lane + 1:
            self.tracks[target.lane - 1] += 1
        return True

    def _track(self, lane: int) -> float:
        self.used[lane] += 1
        return self._lane(lane) + self.cross + TRACK * self.used[lane]

    # What is drawn

    def _arrow(self, edge: Edge) -> str:
        source, target = (self.places[each] for each in edge)
        middle = self._lane(target.lane) + self.cross / 2
        entry = (self._start(target.column), middle)
        gutter = entry[0] - GAP / 2
        if not self.routes[edge]:
            level = self._lane(source.lane) + self.cross / 2
            return self._path(
                [(self._start(source.column) + self.main, level), (gutter, level), (gutter, middle), entry]
            )
        leave = self._start(source.column) + self.main / 2
        points = [(leave, self._lane(source.lane) + self.cross)]
        track = self._track(source.lane)
        points += [(leave, track), (gutter, track)]
        if target.lane > source.lane + 1:
            track = self._track(target.lane - 1)
        return self._path([*points, (gutter, middle), entry])

    def _path(self, points: Sequence[Point]) -> str:
        xy = [point if self.across else point[::-1] for point in _without_repeats(points)]
        (x, y), (before_x, before_y) = xy[-1], xy[-2]
        dx, dy = _unit(x - before_x, y - before_y)
        head = f"M{x:.1f} {y:.1f}l{-6 * dx - 4 * dy:.1f} {-6 * dy - 4 * dx:.1f}l{8 * dy:.1f} {8 * dx:.1f}z"
        xy[-1] = (x - 4 * dx, y - 4 * dy)
        return element("path", d=_rounded(xy), class_="edge") + element("path", d=head, class_="head")

    def _box(self, node: LoopNode) -> str:
        place = self.places[node.name]
        x, y = self._start(place.column), self._lane(place.lane)
        if not self.across:
            x, y = y, x
        width, height = BOX
        parts = [rect(x, y, width, height, "box", radius=7), text(x + 9, y + 18, node.title, class_="strong")]
        for index, words in enumerate(node.lines):
            parts.append(text(x + 9, y + 33 + 13.5 * index, words, class_="muted small"))
        parts.append(rect(x + 9, y + height - 7, width - 18, 2.5, "track", radius=1))
        parts.append(rect(x + 9, y + height - 7, (width - 18) * node.share, 2.5, "fill-b", radius=1))
        return "".join(parts)

    def _lane_label(self, lane: int, name: str) -> str:
        if self.across:
            return text(2.0 if lane == 0 else self._start(1), self._lane(lane) - 7, name, class_="muted strong")
        return text(self._lane(lane), 14.0, name, class_="muted strong")


def _without_repeats(points: Sequence[Point]) -> list[Point]:
    found = [points[0]]
    for point in points[1:]:
        if abs(point[0] - found[-1][0]) + abs(point[1] - found[-1][1]) > 0.01:
            found.append(point)
    return found


def _unit(dx: float, dy: float) -> Point:
    length = max(abs(dx), abs(dy))
    return dx / length, dy / length


def _rounded(points: Sequence[Point], radius: float = 6.0) -> str:
    """A path of straight lines with round corners."""
    written = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        arms = []
        for end in (before, after):
            length = abs(end[0] - corner[0]) + abs(end[1] - corner[1])
            cut = min(radius, length / 2) / length
            arms.append((corner[0] + (end[0] - corner[0]) * cut, corner[1] + (end[1] - corner[1]) * cut))
        (ax, ay), (bx, by) = arms
        written.append(f"L{ax:.1f} {ay:.1f}Q{corner[0]:.1f} {corner[1]:.1f} {bx:.1f} {by:.1f}")
    written.append(f"L{points[-1][0]:.1f} {points[-1][1]:.1f}")
    return "".join(written)
