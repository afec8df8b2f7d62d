"""The report of a run: one HTML page that opens from disk, and nothing else needed.

`gather` reads a run directory into frozen values and forgives what an interrupted run has not
written yet, `front` draws quality × latency as plain data for plotly.js, `page` renders both;
`objectives` tells whom no other beats, where there are more of them than these two.
A run without a task has a `family` instead, whose `subnets` are drawn by FLOPs and relation loss.
May import every room below it; today it needs `space`, `files` and `errors`.
"""

from stillhouse.report.gather import Contents, gather
from stillhouse.report.page import render, write_report

__all__ = ["Contents", "gather", "render", "write_report"]
