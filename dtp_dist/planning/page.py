"""A plan as one HTML page that needs nothing else: tables, bars and the predicted timeline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from dtp_dist.charts.palette import COLOURS
from dtp_dist.charts.style import PICTURES
from dtp_dist.charts.svg import Block, svg, text, timeline
from dtp_dist.planning.plan import Plan
from dtp_dist.planning.text import Cells, count_table, heading, remarks, stage_table
from dtp_dist.planning.timing import NANOSECONDS
from dtp_dist.schedule import ACTIONS, Kind, Span
from dtp_dist.text.numbers import short

WIDTH, ROW, MARGIN = 1120, 24, 110  # pixels of a picture; MARGIN for the names on the left
MOST_ROWS, MOST_MINIBATCHES, EXTRA = 32, 16, 4

STYLE = (
    PICTURES
    + """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; background: #fff; max-width: 1160px;
       margin: 24px auto; padding: 0 20px; }
h1 { font-size: 22px; margin-bottom: 4px; } h2 { font-size: 17px; margin: 28px 0 8px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 10px; text-align: right; border-bottom: 1px solid #ddd; }
th { font-weight: 600; border-bottom: 2px solid #888; vertical-align: bottom; }
pre { background: #f5f5f5; padding: 10px; overflow-x: auto; font-size: 13px; }
code { background: #f5f5f5; padding: 2px 6px; } .wide { overflow-x: auto; }
.key span { display: inline-block; margin-right: 18px; }
.key i { display: inline-block; width: 12px; height: 12px; margin-right: 6px; vertical-align: -1px; }
"""
)


def plan_page(plan: Plan) -> str:
    """Return the page."""
    first, *others = remarks(plan)
    name = escape(plan.config.name)
    parts = [
        f"<h1>Plan of {name}</h1>",
        f"<p>{escape(heading(plan))}</p>",
        f"<p>Fastest with {plan.stages} stage(s): <code>{escape(first)}</code></p>",
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
    names = (
        f'<span><i style="background:{_colour(kind)}"></i>{kind} {name}</span>'
        for kind, name in ACTIONS.items()
    )
    return f'<p class="key">{"".join(names)}</p>'


def _colour(kind: Kind) -> str:
    return COLOURS[ACTIONS[kind]]


def _bars(plan: Plan) -> str:
    """Return a bar for each stage, its actions one after the other."""
    rows = plan.chosen.actions[:MOST_ROWS]
    most = max((sum(actions.values()) for actions in rows), default=0.0) or 1.0
    scale = (WIDTH - MARGIN - 80) / most
    shapes = []
    for stage, actions in enumerate(rows):
        left, top = float(MARGIN), stage * ROW
        shapes.append(text(0, top + 16, _stage_name(plan, stage)))
        for kind, seconds in actions.items():
            width = seconds * scale
            place = f'x="{left:.2f}" y="{top + 2}" width="{max(width, 0.3):.2f}" height="{ROW - 4}"'
            said = f"stage {stage}, {ACTIONS[kind]}: {_amount(plan, seconds)}"
            shapes.append(f'<rect {place} fill="{_colour(kind)}"><title>{said}</title></rect>')
            left += width
        shapes.append(text(left + 6, top + 16, _amount(plan, sum(actions.values()))))
    return svg(WIDTH, len(rows) * ROW, shapes, "what a minibatch costs in every stage") + _left_out(plan)


def _timelines(plan: Plan) -> Iterator[str]:
    """Yield a heading and a picture of the first minibatches in each phase."""
    count = min(MOST_MINIBATCHES, plan.stages + EXTRA)
    for phase, simulation in plan.opening(count).items():
        seconds = simulation.total / NANOSECONDS
        of = "" if len(plan.chosen.simulations) == 1 else f", phase {phase}"
        title = f"Predicted timeline of {count} minibatches{of}"
        yield f"<h2>{title}: {_amount(plan, seconds)}</h2>"
        yield _key()
        rows = [
            (_stage_name(plan, stage), list(_blocks(plan, stage, spans)))
            for stage, spans in enumerate(simulation.spans()[:MOST_ROWS])
        ]
        yield timeline(rows, plan.amount(seconds), WIDTH, unit=plan.unit, label=title)
        yield _left_out(plan)


def _blocks(plan: Plan, stage: int, spans: Sequence[Span]) -> Iterator[Block]:
    for span in spans:
        kind = span.activity.kind
        if kind and span.seconds > 0:
            said = (
                f"stage {stage}, {span.activity}, minibatch {span.minibatch}: {_amount(plan, span.seconds)}"
            )
            start, end = plan.amount(span.start), plan.amount(span.end)
            yield Block(start, end, _colour(kind), said, f"{kind}{span.minibatch}")


def _amount(plan: Plan, seconds: float) -> str:
    return f"{short(plan.amount(seconds))} {plan.unit}"


def _stage_name(plan: Plan, stage: int) -> str:
    layers = plan.chosen.layers[stage]
    of = f"{layers.start + 1}" if len(layers) == 1 else f"{layers.start + 1}-{layers.stop}"
    return f"stage {stage}: {of}"


def _left_out(plan: Plan) -> str:
    more = plan.stages - MOST_ROWS
    return f"<p>and {more} more stages</p>" if more > 0 else ""
