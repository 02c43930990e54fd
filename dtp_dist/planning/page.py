"""A plan as one HTML page that needs nothing else: tables, bars and the predicted timeline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from dtp_dist.planning.plan import Plan
from dtp_dist.planning.simulate import NAMES, NANOSECONDS, SpanTuple
from dtp_dist.planning.words import Cells, count_table, heading, number, remarks, stage_table
from dtp_dist.schedule import Kind

COLOURS = {Kind.FORWARD: "#0072b2", Kind.INVERSE: "#e69f00", Kind.TARGET: "#009e73", Kind.UPDATE: "#cc79a7"}
"""Okabe and Ito's, which colour-blind people tell apart."""

INK = {Kind.FORWARD: "#fff", Kind.INVERSE: "#000", Kind.TARGET: "#fff", Kind.UPDATE: "#000"}

WIDTH, ROW, MARGIN, AXIS = 1120, 24, 110, 24  # pixels of a picture; MARGIN for the names on the left
MOST_ROWS, MOST_MINIBATCHES, EXTRA = 32, 16, 4
LETTER = 7.0  # pixels of a character
TICKS = 8

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; background: #fff; max-width: 1160px;
       margin: 24px auto; padding: 0 20px; }
h1 { font-size: 22px; margin-bottom: 4px; } h2 { font-size: 17px; margin: 28px 0 8px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 10px; text-align: right; border-bottom: 1px solid #ddd; }
th { font-weight: 600; border-bottom: 2px solid #888; vertical-align: bottom; }
pre { background: #f5f5f5; padding: 10px; overflow-x: auto; font-size: 13px; }
code { background: #f5f5f5; padding: 2px 6px; } .wide { overflow-x: auto; }
svg text { font: 12px system-ui, sans-serif; fill: #222; }
.key span { display: inline-block; margin-right: 18px; }
.key i { display: inline-block; width: 12px; height: 12px; margin-right: 6px; vertical-align: -1px; }
"""


def plan_page(plan: Plan) -> str:
    """Return the page."""
    first, *others = remarks(plan)
    name = escape(plan.config.name)
    parts = [
        f"<h1>Plan of {name}</h1>",
        f"<p>{escape(heading(plan))}</p>",
        f"<p>Cut into {plan.stages} stage(s): <code>{escape(first)}</code></p>",
        *_section(*count_table(plan)),
        *_section(*stage_table(plan)),
        "<h2>Where a minibatch's time goes</h2>",
        _key(),
        _bars(plan),
        *_timelines(plan),
        "<h2>The schedule, one tick an action</h2>",
        f"<pre>{escape(plan.drawing())}</pre>",
        "<ul>",
        *(f"<li>{escape(each)}</li>" for each in others),
        "</ul>",
    ]
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Plan of {name}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _section(title: str, cells: Cells) -> Iterator[str]:
    header, *rows = cells
    yield f'<h2>{escape(title)}</h2><div class="wide"><table>'
    yield f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in header)}</tr>"
    for row in rows:
        yield f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
    yield "</table></div>"


def _key() -> str:
    names = (f'<span><i style="background:{COLOURS[kind]}"></i>{kind} {NAMES[kind]}</span>' for kind in Kind)
    return f'<p class="key">{"".join(names)}</p>'


def _bars(plan: Plan) -> str:
    """Return a bar for each stage, its actions one after the other."""
    rows = plan.chosen.actions[:MOST_ROWS]
    most = max((sum(actions.values()) for actions in rows), default=0.0) or 1.0
    scale = (WIDTH - MARGIN - 80) / most
    shapes = []
    for stage, actions in enumerate(rows):
        left, top = float(MARGIN), stage * ROW
        shapes.append(_stage_name(plan, stage, top))
        for kind, seconds in actions.items():
            width = seconds * scale
            title = f"stage {stage}, {NAMES[kind]}: {number(plan.amount(seconds))} {plan.unit}"
            shapes.append(_box(left, top, width, COLOURS[kind], title))
            left += width
        text = f"{number(plan.amount(sum(actions.values())))} {plan.unit}"
        shapes.append(f'<text x="{left + 6:.1f}" y="{top + 16}">{text}</text>')
    return _svg(shapes, len(rows) * ROW) + _left_out(plan)


def _timelines(plan: Plan) -> Iterator[str]:
    """Yield a heading and a picture of the first minibatches in each phase."""
    count = min(MOST_MINIBATCHES, plan.stages + EXTRA)
    for phase, simulation in plan.opening(count).items():
        total = plan.amount(simulation.total / NANOSECONDS)
        of = "" if len(plan.chosen.simulations) == 1 else f", phase {phase}"
        yield f"<h2>Predicted timeline of {count} minibatches{of}: {number(total)} {plan.unit}</h2>"
        yield _key()
        yield _timeline(plan, simulation.spans()[:MOST_ROWS], simulation.total / NANOSECONDS)
        yield _left_out(plan)


def _timeline(plan: Plan, rows: Sequence[Sequence[SpanTuple]], seconds: float) -> str:
    scale = (WIDTH - MARGIN - 40) / (seconds or 1.0)
    kinds = {name: kind for kind, name in NAMES.items()}
    height = len(rows) * ROW
    shapes = [*_axis(plan, seconds, scale, height)]
    for stage, spans in enumerate(rows):
        shapes.append(_stage_name(plan, stage, stage * ROW))
        for name, minibatch, begun, ended in spans:
            if name not in kinds or ended <= begun:
                continue
            took = f"{number(plan.amount(ended - begun))} {plan.unit}"
            title = f"stage {stage}, {name}, minibatch {minibatch}: {took}"
            left, width = MARGIN + begun * scale, (ended - begun) * scale
            shapes.append(_box(left, stage * ROW, width, COLOURS[kinds[name]], title))
            label = f"{kinds[name]}{minibatch}"
            if width > LETTER * len(label) + 4:
                text = f'<text x="{left + width / 2:.1f}" y="{stage * ROW + 16}" text-anchor="middle" '
                shapes.append(f'{text}style="fill:{INK[kinds[name]]}">{label}</text>')
    return _svg(shapes, height + AXIS)


def _axis(plan: Plan, seconds: float, scale: float, height: int) -> Iterator[str]:
    """Yield ticks at round numbers below the rows."""
    total = plan.amount(seconds)
    if not total:
        return
    steps = (base * 10.0**power for power in range(-6, 12) for base in (1, 2, 5))
    step = min(each for each in steps if each >= total / TICKS)
    tick = 0
    while tick * step <= total:
        left = MARGIN + tick * step / total * seconds * scale
        yield f'<line x1="{left:.1f}" y1="0" x2="{left:.1f}" y2="{height + 4}" stroke="#bbb"/>'
        unit = f" {plan.unit}" if tick == 0 else ""
        yield f'<text x="{left:.1f}" y="{height + 18}" text-anchor="middle">{tick * step:g}{unit}</text>'
        tick += 1


def _stage_name(plan: Plan, stage: int, top: int) -> str:
    layers = plan.chosen.layers[stage]
    of = f"{layers.start + 1}" if len(layers) == 1 else f"{layers.start + 1}-{layers.stop}"
    return f'<text x="0" y="{top + 16}">stage {stage}: {of}</text>'


def _box(left: float, top: int, width: float, colour: str, title: str) -> str:
    place = f'x="{left:.2f}" y="{top + 2}" width="{max(width, 0.3):.2f}" height="{ROW - 4}"'
    return f'<rect {place} fill="{colour}"><title>{escape(title)}</title></rect>'


def _svg(shapes: Sequence[str], height: int) -> str:
    content = "\n".join(shapes)
    return f'<svg width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">\n{content}\n</svg>'


def _left_out(plan: Plan) -> str:
    more = plan.stages - MOST_ROWS
    return f"<p>and {more} more stages</p>" if more > 0 else ""
