"""The command that writes the report page of a run."""

from __future__ import annotations

from stillhouse.cli.answer import Answer, answers
from stillhouse.cli.options import RunArgument
from stillhouse.cli.screen import print_line, stoppable
from stillhouse.errors import RunError


@answers
def report(run: RunArgument) -> Answer:
    """Write the report page of a run, finished or not.

    Writes RUN/report.html, one file without links to anywhere, and prints where it is.

    Examples:
        The page of a search that is still at work
            stillhouse report runs/sst2
    """
    from stillhouse.report import write_report  # noqa: PLC0415  plotly loads after parsing

    if not (run / "settings.yaml").exists():
        raise RunError(f"{run} is no run directory: it has no settings.yaml")
    with stoppable():
        page = write_report(run)
    return Answer(told={"run": run, "report": page}, show=lambda: print_line(str(page)))
