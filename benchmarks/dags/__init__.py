"""DAG files of the benchmarks, as a user would write them: each is copied into a project of its own and submitted.

What they share: `ITEMS` names the repo that is read (a cluster of another size reads another one), `load_model` and
`score` are what every contender calls, and `point` is a parameter that changes nothing but makes all datums new.
"""
