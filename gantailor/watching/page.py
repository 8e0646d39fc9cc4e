"""The page of a run that goes on, self-contained; it asks nobody but who served it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import jinja2

from gantailor.pipeline.estimates import about
from gantailor.records.stages import Stage, state_of
from gantailor.reports import figures, fronts, pages
from gantailor.reports.curves import draw_curves
from gantailor.reports.evaluated import Evaluated
from gantailor.search.limits import format_macs
from gantailor.supernet.errors import first_line
from gantailor.watching.view import View

EVERY = 4  # seconds between two looks
SCRIPT = """
const main = document.querySelector("main"), seen = document.getElementById("seen");
let shown = "";
async function look() {
  try {
    const answer = await fetch(location.pathname, { cache: "no-cache" });
    if (!answer.ok) throw new Error(answer.status);
    const text = await answer.text();
    if (text !== shown) {
      const found = new DOMParser().parseFromString(text, "text/html");
      const open = [...main.querySelectorAll("details")].map(one => one.open);
      main.replaceChildren(...found.querySelector("main").childNodes);
      main.querySelectorAll("details").forEach((one, number) => { one.open = open[number] ?? one.open; });
      document.title = found.title;
      shown = text;
    }
    seen.textContent = "looked at " + new Date().toLocaleTimeString();
    seen.classList.remove("lost");
  } catch (error) {
    seen.textContent = "gantailor watch does not answer any more; what is shown is what it said last";
    seen.classList.add("lost");
  }
  setTimeout(look, EVERY);
}
setTimeout(look, EVERY);
""".replace("EVERY", str(1000 * EVERY))


def policy(*, live: bool) -> str:
    """Its content security policy: where it is live its script may ask for it again."""
    return pages.policy([SCRIPT], itself=True) if live else pages.policy()


def render(view: View, *, live: bool) -> str:
    """The page.

    Args:
        live: whether it is served, and looks again every few seconds.
    """
    environment = jinja2.Environment(loader=jinja2.PackageLoader("gantailor.reports", ""), autoescape=True)
    notes = list(view.notes)
    row = view.summary
    return environment.get_template("live.html").render(
        row=row,
        state=state_of(view.stages) if view.stages else "no run yet",
        name=Path(row.folder).resolve().name,
        view=view,
        live=live,
        policy=policy(live=live),
        script=SCRIPT,
        stages=[{"stage": stage, "told": _told(stage)} for stage in view.stages],
        left=None if view.left is None else about(view.left),
        front=_drawn(notes, "the front", lambda: _front(view)),
        losses=[
            _drawn(notes, title, partial(draw_curves, {title: rows}, salt=f"loss{number}"))
            for number, (title, rows) in enumerate(view.losses.items())
        ],
        scores=[
            _drawn(notes, name, partial(_scores, name, rows, f"score{number}"))
            for number, (name, rows) in enumerate(view.scores.items())
        ],
        latest=[(name, rows[-1]) for name, rows in view.scores.items()],
        samples=[(one, figures.data_url(one.png)) for one in view.samples],
        macs=None if row.macs is None else format_macs(row.macs),
        ratio=row.teacher_macs / row.macs if row.macs and row.teacher_macs else None,
        notes=notes,
        written=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _told(stage: Stage) -> str:
    """How far a stage is, and how long it takes."""
    parts = []
    if stage.done is not None and stage.total:
        parts.append(f"{stage.done:,.4g} of {stage.total:,.4g} {stage.unit}")
    if stage.left is not None and stage.state != "not asked":
        parts.append(f"{about(stage.left)}{' left' if stage.done else ''}")
    return ", ".join(parts)


def _drawn(notes: list[str], what: str, how: Callable[[], str]) -> str:
    """A chart; of numbers of anybody's that cannot be drawn there is a note."""
    try:
        return how()
    except Exception as error:  # tables that somebody else wrote raise what they like
        notes.append(f"{what} cannot be drawn: {first_line(error)}")
        return ""


def _front(view: View) -> str:
    found = view.journal
    if found is None:
        return ""
    name = Path(view.summary.folder).resolve().name
    convention = "published" if view.summary.convention == "published" else "true"
    searched = Evaluated(name, found.score, found.frame, found.lower_is_better)
    figure = fronts.draw_growing(searched, convention, view.budget if convention == view.summary.convention else None)
    return figures.svg(figure, salt="growing")


def _scores(name: str, rows: Any, salt: str) -> str:
    return draw_curves({name: rows}, salt=salt, over=("step", "steps"), smooth=False)
