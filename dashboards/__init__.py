"""Grafana's boards as code: `overview` and `pool` say what they show, `build` writes what Grafana reads.

`headlines` and `shared` hold what both show. `queries` knows PromQL and the names of the metrics, `panels` and `looks`
how a panel of this house is made and looks, `frame` what every board has around its panels; `render` plots boards
without Grafana. The JSON beside this file is made by `make boards`, and committed.
"""
