"""This pool and its peers, side by side, in one run: `make bench`.

`contenders` holds one adapter per library and `workloads` one file per thing measured. `inside` runs in a contender's
own process and environment, on the standard library alone; `harness` makes those environments, plays the rounds in
turn, and turns the result into tables and pictures. `inside` never imports `harness`.
"""
