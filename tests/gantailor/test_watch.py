"""The page of a run that goes on: what it shows, to whom, and that it leaves the folder alone."""

import http.client
import io
import os
import re
import threading
from contextlib import contextmanager

import optuna
import pytest
from PIL import Image

from gantailor.cli.main import main
from gantailor.records.journal import read_journal
from gantailor.run.folder import RunFolder
from gantailor.search.storage import JournalFile
from gantailor.supernet.errors import RunError
from gantailor.watching.page import SCRIPT, policy, render
from gantailor.watching.server import serving
from gantailor.watching.view import View

pytestmark = pytest.mark.long  # charts are drawn

WIDTHS = {"body.1": (4, 8), "body.2": (4, 8)}


def searched(folder, count=5, name="gantailor"):
    """A journal with so many evaluated subnets, and one that is evaluated now."""
    study = optuna.create_study(
        study_name=name, storage=JournalFile(folder / "search.journal"), directions=["minimize"]
    )
    study.set_user_attr("objectives", ["features"])
    spaces = {name: optuna.distributions.CategoricalDistribution(sizes) for name, sizes in WIDTHS.items()}
    for number in range(count):
        trial = study.ask(spaces)
        told = {"macs": 400 + 20 * number, "macs_true": 400 + 20 * number, "macs_published": 500, "params": 9}
        for key, value in {**told, "provenance": "p", "origin": "start" if number < 2 else "predictor"}.items():
            trial.set_user_attr(key, value)
        study.tell(trial, 1.0 / (1 + number))
    study.ask(spaces)


@pytest.fixture
def going(made, tmp_path):
    """A run that searches, whose training left scores and pictures."""
    folder = made.finished(tmp_path / "run", search={"trials": 10}, finetune={"kimg": 2})
    for name in ("subnet.json", "subnet.safetensors", "scores.json", "report.html", "export/manifest.json"):
        (folder / name).unlink()
    made.write(folder, "study.json", {"name": "gantailor", "provenance": "p"})
    made.write(folder, "supernet.watch.jsonl", made.lines(*({"step": n, "smallest": 0.5 / n} for n in (100, 200))))
    (folder / "samples").mkdir()
    for step, colour in ((100, "red"), (200, "green")):
        Image.new("RGB", (64, 32), colour).save(folder / f"samples/supernet-{step:07d}.png")
    searched(folder)
    return folder


def state_of(folder):
    return {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in sorted(folder.rglob("*"))}


def test_what_is_shown(going):
    held = RunFolder(going)
    held.lock()
    view = View.read(going)
    page = render(view, live=False)
    held.release()
    (going / "selected.json").write_text("{}")  # as a method leaves it that chooses itself
    assert View.read(going).stages[2].total == 1
    search = view.stages[2]
    assert (search.state, search.done, search.total, search.unit) == ("running", 5, 10, "subnets")
    assert search.left is not None and view.left > 2 * 1000 / 20 - 1 and view.budget == 500
    assert [sample.step for sample in view.samples] == [200] and len(view.journal.frame) == 5
    assert page.count("<svg") == 3  # front, scores, losses
    for text in (
        "Running: search (50%)",
        "5 of 10 subnets",
        "5 subnets evaluated",
        "smallest 0.0025",
        "left for trainings",
    ):
        assert text in page, text
    assert re.search(r'aria-valuenow="50"', page) and "<script" not in page


def test_the_journal_is_replayed_without_a_trace(going):
    with (going / "search.journal").open("a") as file:
        file.write('{"op_code": 4, "study_id"')  # it is being written just now
    before = state_of(going)
    found = read_journal(RunFolder(going))
    assert (found.score, found.lower_is_better, len(found.frame)) == ("features", True, 5) and found.pace >= 0
    assert list(found.frame["origin"])[:3] == ["start", "start", "predictor"]
    assert state_of(going) == before
    (going / "search.journal").write_text('{"op_code": 0}\n')
    with pytest.raises(RunError, match=r"search\.journal.* cannot be read"):
        read_journal(RunFolder(going))
    assert "cannot be read" in render(View.read(going), live=False)
    (going / "search.journal").unlink()
    assert read_journal(RunFolder(going)) is None


def test_methods_that_choose_themselves_score_one_subnet(made, tmp_path):
    totals = dict.fromkeys(("agents", "hypernetwork", "slimming"), 1) | {"supernet": 40, "mine:METHOD": 40}
    for name, total in totals.items():
        folder = made.begun(tmp_path / name, method=name, search={"trials": 40})
        assert View.read(folder).stages[2].total == total


def test_long_logs_are_thinned(going, made):
    rows = [{"kimg": n / 10**4, "images_per_second": 1 + n, "loss": 1.0} for n in range(10001)]
    made.write(going, "supernet.ckpt.jsonl", made.lines(*rows) + '{"kimg": 9')
    (going / "supernet.safetensors").unlink()
    view = View.read(going)
    assert view.stages[1].done == pytest.approx(1.0)
    (drawn,) = view.losses.values()
    assert 2000 < len(drawn) <= 4002 and drawn[0] == rows[0]


def test_nothing_is_written(going):
    before = state_of(going)
    render(View.read(going), live=True)
    assert state_of(going) == before
    for file in [going, *going.rglob("*")]:
        file.chmod(0o555 if file.is_dir() else 0o444)
    assert main(["watch", str(going), "--once", str(going.parent / "page.html")]) == 0
    assert "Stopped in search" in (going.parent / "page.html").read_text()


def test_names_are_escaped_and_links_not_followed(made, tmp_path):
    evil = "</style><script>alert(1)</script>"
    folder = made.begun(tmp_path / "run", generator=f"a:{evil}", options={}, licence=evil)
    made.write(folder, "starts.jsonl", made.lines({"host": evil, "command": evil, "date": evil, "commit": evil}))
    made.write(folder, "supernet.watch.jsonl", made.lines({"step": 1, evil: 0.5}))
    made.write(folder, "supernet.ckpt.jsonl", made.lines({"kimg": 1, evil: 0.5, "$x^{$": 2, "images_per_second": evil}))
    made.write(folder, "scores.json", {"subnet": {evil: {"value": 1}}})
    outside = tmp_path / "outside.png"
    Image.new("RGB", (8, 8)).save(outside)
    (folder / "samples").mkdir()
    (folder / "samples/supernet-0000001.png").symlink_to(outside)
    (folder / f"samples/{evil.replace('/', '')}-0000001.png").write_bytes(outside.read_bytes())
    made.write(folder, "samples/text-0000001.png", "no picture")
    view = View.read(folder)
    page = render(view, live=True)
    assert len(view.samples) == 1 and page.count("<script") == 1 and "alert(1)</script>" not in page


@pytest.mark.parametrize(
    "name", ["config.json", "trace.json", "supernet.ckpt.jsonl", "study.json", "supernet.watch.jsonl"]
)
@pytest.mark.parametrize("content", ["[]", "{", '{"step": {}, "kimg": "x", "name": [], "budget_macs": {}}', "\0", None])
def test_damaged_folders_are_a_page(going, name, content):
    (going / name).unlink()
    if content is None:
        os.mkfifo(going / name)
    else:
        (going / name).write_text(content + "\n")
    page = render(View.read(going), live=True)
    assert "</html>" in page and ("no run can be shown yet" in page) == (name == "config.json")


def test_before_a_run_has_begun(tmp_path, capsys):
    assert "no run can be shown yet" in render(View.read(tmp_path), live=True)
    assert main(["watch", str(tmp_path / "none")]) == 2
    assert "give a run folder" in capsys.readouterr().err
    assert main(["watch", str(tmp_path), "--once", str(tmp_path / "no/page.html")]) == 2
    assert "make it first" in capsys.readouterr().err
    (tmp_path / "link").symlink_to(tmp_path)
    assert main(["watch", str(tmp_path), "--once", str(tmp_path / "link")]) == 2
    assert "it is a folder; name a file" in capsys.readouterr().err and (tmp_path / "link").is_symlink()


@contextmanager
def served(folder):
    with serving(folder, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def ask(port, path="/", host=None, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, headers={"Host": host or f"127.0.0.1:{port}", **headers})
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read().decode()


def test_served_to_this_machine_alone(going):
    with served(going) as port:
        status, headers, page = ask(port)
        assert status == 200 and "stopped in search" in page.lower() and headers["Cache-Control"] == "no-cache"
        rules = headers["Content-Security-Policy"]
        assert "default-src 'none'" in rules and "frame-ancestors 'none'" in rules and policy(live=True) in rules
        assert "unsafe-inline" not in rules.partition("script-src")[2] and SCRIPT in page
        assert ask(port, **{"If-None-Match": headers["ETag"]})[0] == 304
        assert ask(port, host="somebody.example:80")[0] == 403
        assert ask(port, "/../config.json")[0] == 404 and ask(port, "/config.json")[0] == 404
        assert ask(port, method="POST")[0] == 501
        (going / "subnet.json").write_text("{}")  # the search ends
        assert ask(port, **{"If-None-Match": headers["ETag"]})[0] == 200


def test_a_port_that_is_taken(going, capsys):
    with serving(going, 0) as server:
        assert main(["watch", str(going), "--port", str(server.server_port)]) == 2
    assert "choose another, or 0" in capsys.readouterr().err
    assert main(["watch", str(going), "--port", "99999"]) == 2


@pytest.mark.parametrize("width", [1400, 768, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_in_a_browser(going, tmp_path, browser, width, scheme):
    page = tmp_path / "page.html"
    page.write_text(render(View.read(going), live=False))
    with browser(page, viewport={"width": width, "height": 900}, color_scheme=scheme) as view:
        beyond = """[...document.querySelectorAll("main *:not(svg *)")].filter(one => {
            const box = one.getBoundingClientRect(); return box.width && box.right > innerWidth + 1; }).length"""
        assert view.evaluate(beyond) == 0
        assert view.evaluate("[...document.images].every(one => one.naturalWidth > 0)")
        assert len(view.query_selector_all("main h2")) == 6
        # letters without contrast would leave it empty
        assert len(set(Image.open(io.BytesIO(view.screenshot())).convert("L").getdata())) > 8


def test_the_page_follows_the_run(going, browser, monkeypatch):
    monkeypatch.setattr("gantailor.watching.page.SCRIPT", SCRIPT.replace("4000", "100"))
    with served(going) as port, browser(f"http://127.0.0.1:{port}/", served=f"http://127.0.0.1:{port}/") as view:
        view.click("summary")
        held = RunFolder(going)
        held.lock()
        view.wait_for_selector("li.running", timeout=60000)
        assert view.evaluate("document.querySelector('details').open") and "unning" in view.title()
        (going / "subnet.json").write_text("{}")
        view.wait_for_selector("li.running:nth-child(4)", timeout=60000)
        held.release()


def test_a_server_that_is_gone_is_told(going, browser, monkeypatch):
    monkeypatch.setattr("gantailor.watching.page.SCRIPT", SCRIPT.replace("4000", "100"))
    with served(going) as port:
        address = f"http://127.0.0.1:{port}/"
        with browser(address, served=address) as view:
            view.route("**/*", lambda route: route.abort())
            view.wait_for_selector("#seen.lost", timeout=60000)
