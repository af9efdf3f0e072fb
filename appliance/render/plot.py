"""Draws what `bench` measured as an SVG: throughput and times over the number of clients."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 420
HEIGHT: Final = 260
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 34, 42
COLOURS: Final = ("#1f6feb", "#d1242f")
STYLE: Final = (
    "text{font:11px system-ui,sans-serif;fill:#24292f}.t{font-size:13px;font-weight:600}"
    ".g{stroke:#d0d7de}.l{fill:none;stroke-width:2}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One line: a value for each number of clients, None where there is none."""

    name: str
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Lines over the number of clients."""

    title: str
    curves: tuple[Curve, ...]


def svg(title: str, clients: Sequence[int], charts: Sequence[Chart]) -> str:
    """Return the charts, two in a row, as one SVG document."""
    rows = -(-len(charts) // 2)
    width, height = WIDTH * min(2, len(charts)), 30 + HEIGHT * rows
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f'<style>{STYLE}</style><rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text class="t" x="16" y="22">{escape(title)}</text>',
    ]
    for number, chart in enumerate(charts):
        x, y = WIDTH * (number % 2), 30 + HEIGHT * (number // 2)
        parts += [f'<g transform="translate({x} {y})">', *_chart(chart, clients), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _chart(chart: Chart, clients: Sequence[int]) -> list[str]:
    values = [value for curve in chart.curves for value in curve.values if value is not None]
    top = _round_up(max(values, default=1) or 1)
    parts = [f'<text class="t" x="{LEFT}" y="18">{escape(chart.title)}</text>']
    for step in range(5):
        value = top * step / 4
        y = _y(value, top)
        parts.append(f'<line class="g" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for place, number in enumerate(clients):
        x = _x(place, len(clients))
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{number}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">clients</text>')
    for number, curve in enumerate(chart.curves):
        parts += _curve(curve, COLOURS[number % len(COLOURS)], top, len(clients), number)
    return parts


def _curve(curve: Curve, colour: str, top: float, count: int, number: int) -> list[str]:
    points = [(_x(at, count), _y(value, top)) for at, value in enumerate(curve.values) if value is not None]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    legend = WIDTH - RIGHT - 70 * (number + 1)
    return [
        f'<polyline class="l" stroke="{colour}" points="{line}"/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points),
        f'<rect x="{legend}" y="9" width="10" height="10" fill="{colour}"/>',
        f'<text x="{legend + 14}" y="18">{escape(curve.name)}</text>',
    ]


def _x(place: int, count: int) -> float:
    return LEFT + 16 + (WIDTH - LEFT - RIGHT - 32) * (place / (count - 1) if count > 1 else 0.5)


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top


def _round_up(value: float) -> float:
    """Return the next of 1, 2, 4, 8 times a power of ten."""
    power = 1.0
    while power > value:
        power /= 10
    while power * 10 <= value:
        power *= 10
    return next(power * step for step in (1, 2, 4, 8, 10) if power * step >= value)
