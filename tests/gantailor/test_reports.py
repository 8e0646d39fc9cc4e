"""What reports say of a run: the sentence at the top, the warning below it, numbers on axes."""

import base64
import hashlib
import re
from contextlib import nullcontext

import pytest
from matplotlib.figure import Figure

from gantailor.comparison.drawing import page as comparison_page
from gantailor.reports.figures import label_costs
from gantailor.reports.pages import with_policy
from gantailor.reports.report import beside_the_teacher, format_bytes, said, worse_than_nothing


def score(value, *, lower=True):
    return {"value": value, "lower_is_better": lower, "unit": ""}


COSTS = [
    {"name": "teacher", "macs": 1240, "ms": {"onnxruntime-cpu": 8.1}},
    {"name": "subnet", "macs": 100, "ms": {"onnxruntime-cpu": 1.0}},
]


def test_what_was_achieved():
    scores = {"teacher": {"kid": score(0.0851)}, "subnet": {"kid": score(0.1049)}}
    expected = (
        "12.4x fewer MACs than the teacher, 8.1x faster on onnxruntime-cpu, kid 0.1049 beside the teacher's 0.0851"
    )
    assert said(COSTS, scores) == expected
    against = {"teacher": {"l1": score(0.3)}, "subnet": {"l1": score(0.2), "l1[teacher]": score(0.1)}}
    assert said(COSTS, against).endswith("cpu, l1 0.2 beside the teacher's 0.3, l1[teacher] 0.1")
    slower = [COSTS[0], {**COSTS[1], "ms": {"onnxruntime-cpu": 16.2}}]
    assert "0.5x as fast on onnxruntime-cpu" in said(slower, scores)
    alone = [{**COSTS[0], "name": "whole generator", "ms": {}}, {**COSTS[1], "ms": {}}]
    assert said(alone, {"subnet": scores["subnet"]}) == "12.4x fewer MACs than the whole generator, kid 0.1049"


def test_no_generator_at_all_is_better():
    subnet = {"l1": score(0.2), "psnr": score(20.0, lower=False)}
    assert worse_than_nothing({"input": {"l1": score(0.21), "psnr": score(19.0, lower=False)}, "subnet": subnet}) == []
    (line,) = worse_than_nothing({"input": {"l1": score(0.19), "psnr": score(19.0, lower=False)}, "subnet": subnet})
    assert line.startswith("The untouched input scores better than the subnet by l1: ")
    two = {"input, nearest": {"psnr": score(21.0, lower=False)}, "input, enlarged": {"psnr": score(22.0, lower=False)}}
    assert len(worse_than_nothing({**two, "teacher": {"psnr": score(9.0, lower=False)}, "subnet": subnet})) == 2


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize(
    ("low", "high"), [(1.2e8, 1.3e8), (1.02e9, 6e9), (1e6, 1e9), (3.1e3, 9e10), (124506624, 124526656), (7.9e6, 8.3e7)]
)
def test_an_axis_has_numbers_at_every_range(log, low, high):
    axes = Figure().add_subplot()
    axes.scatter([low, high], [0, 1])
    label_costs(axes, log=log)
    left, right = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if left <= tick <= right]
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert 3 <= len(ticks) <= 12 and len(names) == len(ticks)
    units = {"K": 1e3, "M": 1e6, "G": 1e9}
    values = [
        float(name[:-1]) * units[name[-1]] if name[-1] in units else float(name.replace(",", "")) for name in names
    ]
    assert values == pytest.approx(ticks, rel=1e-3) and len(set(values)) == len(values)
    assert left <= low and high <= right and axes.get_xscale() == ("log" if log else "linear")


def test_how_far_from_the_teacher_with_an_interval_over_pictures():
    taught, subnet = score(0.2) | {"halves": [0.1, 0.3]}, score(0.21) | {"halves": [0.12, 0.3]}
    found = beside_the_teacher({"teacher": {"l1": taught}, "subnet": {"l1": subnet}, "input": {"l1": subnet}})
    assert found == {("subnet", "l1"): "+5.0 ± 13.9%"}  # 1.96 times the deviation of 10% and 0%
    for other in (score(0.2), score(0.2) | {"halves": [0.1]}, score(-0.01) | {"halves": [0.1, 0.3]}):
        assert beside_the_teacher({"teacher": {"l1": other}, "subnet": {"l1": subnet}}) == {}
    assert beside_the_teacher({"subnet": {"l1": subnet}}) == {}


def test_sizes_in_words():
    assert [format_bytes(n) for n in (12, 4700, 4.7e6, 1.25e9)] == ["12 B", "4.7 kB", "4.7 MB", "1.25 GB"]


HOSTILE = "<script>document.title = 'ran'</script><img src=x onerror=\"document.title = 'ran'\"><b style='color: red'>"
BROUGHT_IN = f"""<!doctype html><meta charset="utf-8"><title>as it was</title>{HOSTILE}<img src="https://example.com/x.png">
<link rel="stylesheet" href="https://example.com/x.css"><iframe src="https://example.com"></iframe><p id="said"></p>
<script>document.getElementById("said").textContent = "own"</script>"""


def test_only_the_pages_own_script_is_allowed():
    """And nothing from any network, even where a name were written as it is."""
    page = with_policy(BROUGHT_IN).decode()
    (policy,) = re.findall('<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    own = 'document.getElementById("said").textContent = "own"'
    digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:;") and policy.endswith(
        f"; script-src 'sha256-{digest}'"
    )
    assert page.index(policy) < page.index("<title>")
    assert "script-src" not in with_policy('<meta charset="utf-8"><p>').decode()


def test_a_page_that_was_brought_something_in_a_browser(tmp_path, browser):
    (tmp_path / "page.html").write_bytes(with_policy(BROUGHT_IN))
    with browser(tmp_path / "page.html", usable=False) as view:
        assert view.title() == "as it was" and view.locator("#said").inner_text() == "own"


def test_names_in_a_comparison_are_text():
    table = f"| method | MACs |\n|---|---|\n| {HOSTILE} | 1 |"
    made = with_policy(comparison_page([(HOSTILE, table)], {HOSTILE: b""}, said=[HOSTILE], notes=[HOSTILE])).decode()
    assert HOSTILE not in made and "<script" not in made and "Content-Security-Policy" in made


@pytest.mark.parametrize(
    "broken",
    [
        '<div class="wide" style="overflow: auto"><p style="width: 500px">a table that has to be scrolled</p></div>',
        '<p style="width: 500px">wider than the page</p>',
        '<svg width="100" height="20" viewBox="0 0 400 80"><text y="40" font-size="16">tiny</text></svg>',
        '<p style="color: #ccc">hardly seen</p>',
        '<img src="data:,">',
        "<input type='range'>",
    ],
)
def test_what_keeps_people_from_reading_a_page_is_found(tmp_path, browser, broken):
    """The checks of every page that tests open, on pages that are broken on purpose."""
    whole = '<!doctype html><html lang="en"><title>a page</title><main><h1>A page</h1>{}</main></html>'
    for number, (more, wrong) in enumerate((("<p>fine</p>", False), (broken, True))):
        page = tmp_path / f"{number}.html"
        page.write_text(whole.format(more))
        said = pytest.raises(AssertionError) if wrong else nullcontext()
        with said, browser(page, viewport={"width": 390, "height": 800}):
            pass
