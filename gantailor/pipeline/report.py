"""Stage "report": one page with pictures, costs, scores, the front."""

from __future__ import annotations

from gantailor.run.run import Run


def report(run: Run) -> None:
    """Write ``front.png``, ``front.svg``, ``front.html`` and ``report.html``."""
    from gantailor.reports import fronts
    from gantailor.reports.report import write_report

    found = [fronts.SearchResult.of(run)]
    figure = fronts.draw(found)
    fronts.save(figure, run.folder.file("front.png"))
    fronts.save(figure, run.folder.file("front.svg"))
    fronts.write_page(run.folder.file("front.html"), found)
    write_report(run, figure)
