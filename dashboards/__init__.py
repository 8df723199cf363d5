"""Grafana's boards as code: `overview` and `pool` say what they show, `build` writes what Grafana reads.

`queries` knows PromQL and the names of the metrics, `panels` how a panel of this house looks, `frame` what every board
has around its panels. The JSON beside this file is made by `make boards`, and committed.
"""
