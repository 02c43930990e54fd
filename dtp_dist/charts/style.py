"""How the report looks."""

PICTURES = """
svg { max-width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: #333; }
svg .title { font-size: 13px; font-weight: 600; fill: #111; }
svg .ondark { fill: #fff; font-size: 11px; } svg .onlight { fill: #111; font-size: 11px; }
svg .grid { stroke: #e6e6e6; } svg .axis, svg .tick { stroke: #777; }
svg .curve { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
svg .band { fill-opacity: 0.18; stroke: none; }
"""
"""What ``dtp_dist.charts.svg`` draws, on any page."""

CSS = (
    PICTURES
    + """
body { font: 14px/1.45 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto; padding: 16px;
  width: 1216px; max-width: calc(100% - 32px); }
h1 { font-size: 24px; margin: 8px 0; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 28px 0 8px; border-bottom: 2px solid #ddd; padding-bottom: 3px; }
h3 { font-size: 15px; margin: 16px 0 4px; }
p { margin: 6px 0; }
table { border-collapse: collapse; font-size: 13px; width: 100%; }
th, td { text-align: left; padding: 3px 8px; border-bottom: 1px solid #e4e4e4; vertical-align: top;
  overflow-wrap: anywhere; }
th { background: #f5f5f5; }
table.summary th, table.summary td { padding: 3px 4px; overflow-wrap: normal; font-size: 12.5px; }
table.summary td:nth-child(2), table.summary td:nth-child(5), table.summary td:nth-child(13),
table.summary td:nth-child(16) { white-space: nowrap; }
table.values { table-layout: fixed; }
table.values th:nth-child(1) { width: 280px; } table.values th:nth-child(2) { width: 130px; }
table.events th, table.events td:nth-child(-n+4) { white-space: nowrap; }
code { font-size: 12px; }
ul.notes { margin: 8px 0; padding-left: 20px; color: #444; }
.run { display: inline-block; margin-right: 18px; }
ul.notes .run { margin-right: 0; }
.legend { color: #333; }
summary { cursor: pointer; color: #333; margin: 8px 0; }
.done { color: #00664a; } .running { color: #0056a0; } .failed, .unreadable, .no-run { color: #b00020; }
.interrupted, .cut-off { color: #8a5a00; }
.failed, .unreadable, .no-run, .interrupted, .cut-off, .running { font-weight: 600; }
.grid2 { display: grid; grid-template-columns: repeat(2, 600px); gap: 10px 16px; }
@media print { section { break-before: auto; } svg, tr, h3 { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  body { width: auto; } .grid2 { grid-template-columns: 1fr 1fr; } }
"""
)
