"""Stage "report": one page with pictures, costs, scores, the front."""

from __future__ import annotations

from gantailor.reports import figures, fronts
from gantailor.reports.report import write_report
from gantailor.reports.search_result import SearchResult
from gantailor.run.run import Run


def report(run: Run) -> None:
    """Write ``front.png``, ``front.svg``, ``front.html`` and ``report.html``."""
    found = [SearchResult.of(run)]
    figure = fronts.draw(found)
    figures.save(figure, run.folder.file("front.png"))
    figures.save(figure, run.folder.file("front.svg"))
    fronts.write_page(run.folder.file("front.html"), found)
    write_report(run, fronts.draw_parts(found))
