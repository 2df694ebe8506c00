"""The fault tests of the service, row by row: `make chaos`, `python -m benchmarks.chaos`.

A row breaks something on purpose and measures what the service's promises then come to. `long` is the form whose
figures are kept in docs/reliability.md; `short` is the same code with smaller numbers, run by the ordinary tests.
"""
