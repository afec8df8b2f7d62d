"""Benchmark tables: every student of a small space, trained and timed once, to search in seconds.

`load` gives a table by name, `names` lists them; a strategy is replayed on one without a teacher,
data or training. The tables themselves are in `tables/`, each a CSV file with a YAML file that says
how it was made. May import `search`, `space` and `errors`, and `device.chips` for its spelling
help; knows no torch.
"""

from stillhouse.benchmark.share import front_shares
from stillhouse.benchmark.table import About, BenchmarkTable, load, names

__all__ = ["About", "BenchmarkTable", "front_shares", "load", "names"]
