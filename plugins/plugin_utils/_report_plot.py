# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Draws how a destination's share closed in on its band, probe by probe, as SVG. Pure.

Probes run on a logarithmic scale: chance moves a share by about 1/sqrt(probes), so every decade is as interesting as
the one before. Shares are shown from some way below the band to some way above it.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree

from ansible_collections.trafficshift.istio.plugins.plugin_utils._report_data import percent

WIDTH, HEIGHT = 420, 236
LEFT, RIGHT, TOP, BOTTOM = 56, 346, 8, 194  # of the plot within the picture
INSET = 5  # between the outermost shares and the frame, so that a line at 0 or 100 % is seen
READOUTS = 40  # places along the plot that tell their share when pointed at
FIRST = 10  # probes at which a plot begins, unless there are too few: what is before is noise

Point = tuple[float, float]


class Course(NamedTuple):
    """One destination's course: fractions, and for some numbers of probes what the share can be."""

    word: str
    wanted: float
    tolerance: float  # 0 for an exact rule
    probes: Sequence[int]
    counts: Sequence[int]
    span: Sequence[float] | None  # the final interval
    funnel: Sequence[tuple[int, float, float]]


def add(parent: ElementTree.Element, tag: str, text: str = "", **attributes: Any) -> ElementTree.Element:
    """Add an element; `class_` stands for class, and underscores for hyphens. What it holds is escaped when written."""
    named = {name.rstrip("_").replace("_", "-"): _plain(value) for name, value in attributes.items()}
    element = ElementTree.SubElement(parent, tag, named)
    element.text = text.replace(" %", "\u00a0%")  # no line ends between a number and its sign
    return element


def _plain(value: Any) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


class _Scale:
    """Where probes and shares are in the picture."""

    def __init__(self, course: Course) -> None:
        last = course.probes[-1]
        self.first = next(made for made in course.probes if made >= FIRST or last < 5 * FIRST)
        self.last = max(last, self.first + 1)
        final = course.counts[-1] / last
        reach = max(
            3 * (course.tolerance or 0.05),
            0.01,
            1.25 * abs(final - course.wanted),
            *(1.1 * abs(end - course.wanted) for end in course.span or ()),
        )
        self.low, self.high = max(0.0, course.wanted - reach), min(1.0, course.wanted + reach)

    def x(self, probes: float) -> float:
        part = math.log(max(probes, self.first) / self.first) / math.log(self.last / self.first)
        return LEFT + part * (RIGHT - LEFT)

    def y(self, share: float) -> float:
        """Return where a share is; one out of sight is at the frame."""
        part = (share - self.low) / (self.high - self.low)
        inside = BOTTOM - INSET - part * (BOTTOM - TOP - 2 * INSET)
        return min(max(inside, float(TOP)), float(BOTTOM))


def draw(parent: ElementTree.Element, course: Course, name: str, description: str) -> None:
    """Add the picture; `name` makes its ids unique, `description` is for those who do not see it."""
    scale = _Scale(course)
    svg = add(
        parent,
        "svg",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_labelledby=f"{name}-title",
        aria_describedby=f"{name}-desc",
    )
    add(svg, "title", f"Share of {course.word} by number of probes", id=f"{name}-title")
    add(svg, "desc", description, id=f"{name}-desc")
    _band(svg, scale, course)
    _axes(svg, scale)
    if course.funnel:
        edge = [(scale.x(made), scale.y(high)) for made, _low, high in course.funnel if made >= scale.first]
        edge += [(scale.x(made), scale.y(low)) for made, low, _high in reversed(course.funnel) if made >= scale.first]
        add(svg, "polygon", class_="funnel", points=_points(edge))
    shares = [(made, count / made) for made, count in zip(course.probes, course.counts) if made >= scale.first]
    for line in _visible([(scale.x(made), share) for made, share in shares], scale):
        add(svg, "polyline", class_="share", points=_points(line))
    _final(svg, scale, course)
    _readouts(svg, scale, course)


def _band(svg: ElementTree.Element, scale: _Scale, course: Course) -> None:
    top, bottom = scale.y(course.wanted + course.tolerance), scale.y(course.wanted - course.tolerance)
    add(svg, "rect", class_="band", x=LEFT, y=top, width=RIGHT - LEFT, height=bottom - top)
    wanted = scale.y(course.wanted)
    add(svg, "line", class_="wanted", x1=LEFT, x2=RIGHT, y1=wanted, y2=wanted)


def _axes(svg: ElementTree.Element, scale: _Scale) -> None:
    step = next(
        step for step in (0.01, 0.02, 0.05, 0.1, 0.25) if (scale.high - scale.low) / step <= 6.5 or step == 0.25
    )
    for index in range(math.ceil(scale.low / step - 1e-9), math.floor(scale.high / step + 1e-9) + 1):
        y = scale.y(index * step)
        add(svg, "line", class_="grid", x1=LEFT, x2=RIGHT, y1=y, y2=y)
        add(svg, "text", f"{index * step * 100:.4g} %", class_="tick", x=LEFT - 6, y=y + 4, text_anchor="end")
    add(svg, "line", class_="axis", x1=LEFT, x2=RIGHT, y1=BOTTOM, y2=BOTTOM)
    for made in _decades(scale.first, scale.last):
        x = scale.x(made)
        add(svg, "line", class_="axis", x1=x, x2=x, y1=BOTTOM, y2=BOTTOM + 4)
        add(svg, "text", f"{made:,}", class_="tick", x=x, y=BOTTOM + 17, text_anchor="middle")
    add(
        svg,
        "text",
        "probes, logarithmic",
        class_="tick",
        x=(LEFT + RIGHT) / 2,
        y=HEIGHT - 6,
        text_anchor="middle",
    )


def _decades(first: int, last: int) -> list[int]:
    """Return the numbers to write below the axis: powers of ten with 2 and 5 times them, where there is room."""
    factors = (1, 2, 5) if last / first <= 2000 else (1,)
    marks = [factor * 10**power for power in range(len(str(last))) for factor in factors]
    marks = [mark for mark in marks if first <= mark <= last]
    # The end is always told, in place of a mark so near that the two would run into each other.
    near = (last / first) ** 0.16
    return [mark for mark in marks if mark * near < last] + [last]


def _visible(points: Sequence[Point], scale: _Scale) -> list[list[Point]]:
    """Return the stretches of a line of (x, share) that are in sight, as coordinates, cut at the frame."""
    lines: list[list[Point]] = []
    before: Point | None = None
    for x, share in points:
        within = scale.low <= share <= scale.high
        if before is None or not scale.low <= before[1] <= scale.high:
            if within:
                lines.append([])
                if before is not None:
                    lines[-1].append(_cut((x, share), before, scale))
        elif not within:
            lines[-1].append(_cut(before, (x, share), scale))
        if within:
            lines[-1].append((x, scale.y(share)))
        before = (x, share)
    return lines


def _cut(inside: Point, outside: Point, scale: _Scale) -> Point:
    """Return where a line from a point in sight to one out of sight crosses the frame."""
    edge = scale.high if outside[1] > scale.high else scale.low
    part = (edge - inside[1]) / (outside[1] - inside[1])
    return inside[0] + part * (outside[0] - inside[0]), scale.y(edge)


def _points(line: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in line)


def _final(svg: ElementTree.Element, scale: _Scale, course: Course) -> None:
    x, share = scale.x(course.probes[-1]), course.counts[-1] / course.probes[-1]
    if course.span:
        low, high = (scale.y(end) for end in course.span)
        add(svg, "path", class_="span", d=f"M{x - 4:.1f} {high:.1f}h8M{x:.1f} {high:.1f}V{low:.1f}m-4 0h8")
    add(svg, "circle", class_="final", cx=x, cy=scale.y(share), r=3.5)
    add(svg, "text", percent(share), class_="value", x=x + 9, y=scale.y(share) + 4)


def _readouts(svg: ElementTree.Element, scale: _Scale, course: Course) -> None:
    width = (RIGHT - LEFT) / READOUTS
    for index in range(READOUTS):
        middle = LEFT + (index + 0.5) * width
        made = scale.first * (scale.last / scale.first) ** ((index + 0.5) / READOUTS)
        at = min(bisect.bisect_left(course.probes, made), len(course.probes) - 1)
        share = course.counts[at] / course.probes[at]
        group = add(svg, "g", class_="readout")
        add(group, "rect", x=middle - width / 2, y=TOP, width=width, height=BOTTOM - TOP)
        told = add(group, "g")
        add(told, "line", x1=middle, x2=middle, y1=TOP, y2=BOTTOM)
        add(
            told,
            "text",
            f"{percent(share)} after {course.probes[at]:,}",
            x=middle + (5 if index < READOUTS / 2 else -5),
            y=BOTTOM - 8,
            text_anchor="start" if index < READOUTS / 2 else "end",
        )
