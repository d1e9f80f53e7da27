"""The rows of the README's table, one JSON each.

`record.py` makes them, `table.py` prints them, `publish.py` takes a model into `pretrained/`,
`compare.py` draws the curves of runs. `degraded.py` scores models on degraded pictures, one JSON a
benchmark in `degraded_sets`.
"""
