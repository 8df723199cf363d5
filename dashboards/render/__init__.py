"""Pictures of boards without Grafana: `python -m dashboards.render PROMETHEUS-URL DIRECTORY`.

`board` reads a board's JSON, `ask` has Prometheus answer its queries, `page` lays its panels on its own grid and
`paint` draws each; `theme` and `units` know how Grafana colours and spells. Only Prometheus' panels are drawn.
"""
