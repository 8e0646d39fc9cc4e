"""Several methods side by side: runs, table, plot and pictures."""

import hashlib
import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

from gantailor.cli.main import main
from gantailor.comparison import drawing, fairness, running
from gantailor.comparison.results import results
from gantailor.comparison.running import take_supernet
from gantailor.comparison.runs import Comparison
from gantailor.evaluators.halves import shown_interval
from gantailor.pipeline import evaluate
from gantailor.pipeline.compress import compress
from gantailor.reports.pages import with_policy
from gantailor.run.folder import RunFolder
from gantailor.supernet.errors import BusyError, ConfigError
from gantailor.supernet.files import read_rows

SMALL = "batch: 4, ndf: 8, watch_kimg: 0"


@pytest.fixture(scope="module")
def described(tmp_path_factory, tiny_teacher, pairs):
    """A comparison of three arms with two seeds, on tiny pictures."""
    folder = tmp_path_factory.mktemp("compared")
    file = folder / "compare.yaml"
    file.write_text(
        "methods:\n"
        "  agents: {train: {method_options: {discriminator_kimg: 0.02, neighbours: 2}}}\n"
        "  hypernetwork:\n"
        "  uniform: {method: diversity, ranking: l1}\n"
        "budgets: [0.3x, 0.5x]\nseeds: [0, 1]\nkimg: 0.08\ncommon:\n"
        f"  options: {{ngf: 8}}\n  teacher: {tiny_teacher}\n"
        f"  data: {{kind: folder, path: {pairs}, size: 32}}\n"
        "  evaluation: {final: [l1, psnr], search_images: 4}\n"
        f"  train: {{{SMALL.replace('kimg: 0', 'kimg: 0.02')}}}\n  finetune: {{{SMALL}}}\n"
    )
    return file


@pytest.fixture(scope="module")
def compared(described):
    """It, finished."""
    assert main(["compare", str(described), "--out", str(described.parent / "out")]) == 0
    return described, described.parent / "out"


@pytest.mark.long
def test_every_run_is_in_the_table(compared):
    _, out = compared
    frame = pd.read_csv(out / "results.csv")
    assert len(frame) == 12 and set(frame["method"]) == {"agents", "hypernetwork", "uniform"}
    assert (frame["seconds"] > 0).all() and frame["l1"].between(0, 2).all()
    budget = {"0.3x": 0.3, "0.5x": 0.5}
    whole = json.loads((out / "agents-0.3x-0" / "trace.json").read_text())["macs_full"]["true"]
    assert all(row["macs"] <= budget[row["budget"]] * whole for _, row in frame.iterrows())
    lines = (out / "table.md").read_text().partition("\n\n")[0].splitlines()
    assert lines[2].startswith("| teacher |") and len(lines) == 10
    changed = [line for line in (out / "table.md").read_text().splitlines() if "± " in line][6:]
    arms = ["hypernetwork", "uniform"] * 2 + ["agents", "hypernetwork", "uniform"] * 2  # beside agents, and the teacher
    assert [line.split("|")[1].strip() for line in changed] == arms
    halves = pd.read_csv(out / "halves.csv", keep_default_na=False)
    assert len(halves) == 2 * 13 and list(halves.columns[:5]) == ["method", "budget", "seed", "metric", "1"]
    untouched = json.loads((out / "uniform-0.3x-0" / "scores.json").read_text())["input"]["l1"]["value"]
    assert lines[3].startswith(f"| input | | 0 | {untouched:.4g} |")
    mean = frame[(frame["method"] == "agents") & (frame["budget"] == "0.5x")]["psnr"]
    assert f"{mean.mean():.4g} ± {mean.std():.2g}" in (out / "table.md").read_text()
    history = pd.read_csv(out / "history.csv")
    assert set(history["method"]) == {"agents", "hypernetwork"} and (history["kimg"] <= 0.04).all()
    assert history.groupby(["method", "budget", "seed"]).size().max() > 1
    for name in ("compare.png", "history.png", "pictures-0.3x.png", "pictures-0.5x.png"):
        assert Image.open(out / name).width > 100
    page = (out / "compare.html").read_text()
    assert (
        page.count("data:image/png") == 4 and page.count("<tr>") == 21 and "Budget 0.5x: input, teacher, agents" in page
    )
    assert "<svg" in (out / "compare.svg").read_text()


def rows(**scores):
    """A frame of runs: lists of one score for each arm, by seed."""
    return pd.DataFrame(
        {
            "method": arm,
            "budget": "0.1x",
            "seed": seed,
            "macs": macs,
            "kimg": 1.0,
            "seconds": 60.0,
            "l1": l1,
            "psnr": 20 - l1,
        }
        for arm, (macs, values) in scores.items()
        for seed, l1 in enumerate(values)
    )


def wide_of(frame):
    grouped = frame.drop(columns="seed").groupby(["method", "budget"], sort=False)
    return grouped.agg(["mean", "std"]).assign(seeds=grouped.size())


def test_what_is_worse_than_no_generator_is_marked():
    wide = wide_of(rows(good=(100, [1.0, 2.0]), bad=(100, [4.0, 5.0])))
    text = drawing.markdown(wide, {"input": {"macs": 0, "l1": 3.0, "psnr": 17.0}, "teacher": {"macs": 900, "l1": 9.0}})
    good, bad = (line for line in text.splitlines() if line.startswith(("| good", "| bad")))
    assert fairness.WORSE not in good and bad.count(fairness.WORSE) == 2 and fairness.WORSE_SAID in text
    two = {"input, nearest": {"l1": 5.0}, "input, enlarged": {"l1": 3.0}}  # the better one counts
    assert fairness.worse_than_nothing("l1", 4.0, two) and not fairness.worse_than_nothing("l1", 2.0, two)
    assert not fairness.worse_than_nothing("l1", 99.0, {"teacher": {"l1": 1.0}})


def test_changes_are_paired_and_have_an_interval():
    frame = rows(base=(100, [1.0, 2.0, 4.0]), other=(100, [1.1, 2.4, 5.2]), lone=(100, [2.0]))
    lines = fairness.changes(frame, ["l1"])
    half = 4.302652729911275 * 10 / 3**0.5  # t of 2 degrees of freedom, deviation of 10, 20, 30
    assert lines[0] == "| beside base | budget | l1, % | seeds |"
    assert lines[2:] == [f"| other | 0.1x | +20.0 ± {half:.1f} | 3 |", "| lone | 0.1x | +100.0 | 1 |"]
    assert shown_interval([10.0, 10.1, 10.2]).startswith("**+10.1 ± 0.2")
    assert fairness.changes(frame[frame.method == "base"], ["l1"]) == []


def test_unequal_macs_are_told():
    (said,) = fairness.unequal_costs(wide_of(rows(wide=(100_000_000, [1.0]), narrow=(99_000_000, [1.0]))))
    assert said.startswith("at 0.1x the arms' MACs differ by 1.0%: narrow has 99") and "wide 100" in said
    assert fairness.unequal_costs(wide_of(rows(wide=(1000, [1.0]), narrow=(996, [1.0])))) == []


def test_the_page_says_who_is_best():
    wide = wide_of(rows(one=(100, [1.0, 2.0]), two=(100, [4.0, 5.0])))
    (said,) = drawing.said_best(wide, {"teacher": {"l1": 0.5}})
    assert said == "At 0.1x one has the best l1 (1.5, the teacher 0.5), psnr (18.5)."
    page = drawing.page(
        [("<b>", "| a | b |\n|---|---|\n| x | **+1.0** |\n\nbelow <i>\n")], {}, said=[said], notes=["<x>"]
    )
    assert "<strong>+1.0</strong>" in page and "&lt;b&gt;" in page and "&lt;i&gt;" in page and "&lt;x&gt;" in page


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (390, "dark")])
def test_the_page_in_a_browser(tmp_path, browser, width, scheme):
    wide = wide_of(rows(one=(100, [1.0, 2.0]), two=(100, [4.0, 5.0])))
    table = drawing.markdown(wide, {"input": {"macs": 0, "l1": 3.0, "psnr": 17.0}})
    (tmp_path / "compare.html").write_bytes(with_policy(drawing.page([("Means", table)], {}, said=["One sentence."])))
    with browser(tmp_path / "compare.html", viewport={"width": width, "height": 800}, color_scheme=scheme) as view:
        assert view.locator("td", has_text=fairness.WORSE).count() == 2


def path_runs(tmp_path, budgets, **own):
    arms = {"supernet": own, "slimming": {}}
    return Comparison(methods=arms, budgets=budgets, seeds=(0, 1), kimg=1).entries(tmp_path)


def test_a_path_that_budgets_share_goes_down_to_the_smallest(tmp_path):
    """Trained once down to a fifth, it has nothing to say of a tenth."""
    entries = path_runs(tmp_path, ("0.2x", "0.05x", "0.1x"))
    paths = [entry for entry in entries if entry.method == "supernet"]
    assert {entry.config.train.method_options["smallest"] for entry in paths} == {0.05}
    assert [entries[running.leader(entry, entries)].budget for entry in paths] == ["0.2x"] * 6
    assert not any("smallest" in entry.config.train.method_options for entry in entries if entry.method == "slimming")
    (alone, _) = [entry for entry in path_runs(tmp_path, ("0.1x",)) if entry.method == "supernet"]
    assert "smallest" not in alone.config.train.method_options, "its own budget, which is the default"


def test_a_path_for_each_budget(tmp_path):
    entries = path_runs(tmp_path, ("0.2x", "0.05x"), train={"method_options": {"smallest": 0}})
    assert all(not entry.config.train.method_options.get("smallest") for entry in entries)
    assert [running.leader(entry, entries) for entry in entries] == list(range(len(entries)))


def test_a_path_down_to_one_budget_is_nobody_elses(tmp_path):
    for entries in (path_runs(tmp_path, ("0.1x", "9M")), path_runs(tmp_path, ("0.1x", "macs<=0.05x"))):
        assert [running.leader(entry, entries) for entry in entries] == list(range(len(entries)))
    told = path_runs(tmp_path, ("0.1x", "9M"), train={"method_options": {"smallest": 0.01}})
    assert [running.leader(entry, told) for entry in told[:4]] == [0, 1, 0, 3]
    drawn = path_runs(tmp_path, ("0.1x", "9M"), space="default")  # widths at random are of no budget
    assert [running.leader(entry, drawn) for entry in drawn[:4]] == [0, 1, 0, 3]


@pytest.mark.long
def test_all_see_as_many_images(compared):
    file, _ = compared
    for entry in Comparison.read(str(file)).entries(file.parent / "out"):
        config = entry.config
        assert config.train.kimg + config.finetune.kimg == pytest.approx(0.08)
        assert (config.train.kimg == 0) == (entry.method == "uniform") and config.train.batch == 4
        assert config.seed == config.train.seed == config.finetune.seed == entry.seed


@pytest.mark.long
def test_a_folder_with_other_settings_is_refused(compared, tmp_path, capsys):
    file, out = compared
    (tmp_path / "other.yaml").write_text(file.read_text().replace("ngf: 8}\n", "ngf: 8}\n  convention: published\n"))
    assert main(["compare", str(tmp_path / "other.yaml"), "--out", str(out)]) == 2
    assert "was made with other settings (convention " in capsys.readouterr().err


@pytest.mark.long
def test_again_trains_nothing(compared, capsys):
    file, out = compared
    before = (out / "agents-0.3x-0" / "subnet.safetensors").stat().st_mtime_ns
    assert main(["compare", str(file), "--out", str(out), "--dry-run"]) == 0
    assert capsys.readouterr().out.count(", done") == 12
    (out / "table.md").unlink()
    assert main(["compare", str(file), "--out", str(out)]) == 0
    assert (out / "table.md").exists()
    assert (out / "agents-0.3x-0" / "subnet.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
def test_one_failure_takes_nothing_with_it(compared, tmp_path, capsys):
    file, _ = compared
    wrong = tmp_path / "wrong.yaml"
    text = (
        file.read_text().replace("budgets: [0.3x, 0.5x]", "budgets: [1K, 0.5x]").replace("seeds: [0, 1]", "seeds: [0]")
    )
    wrong.write_text(text.replace("  agents:", "  slow: {method: agents, train: {kimg: -1}}\n  agents:"))
    assert main(["compare", str(wrong), "--out", str(tmp_path / "no")]) == 2
    assert "train.kimg" in capsys.readouterr().err
    wrong.write_text(text)
    assert main(["compare", str(wrong), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert (
        "agents-1K-0, " in said.err
        and ": budget macs<=1K cannot be reached" in said.err
        and "| uniform | 0.5x |" in said.out
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("methods: [slimmin]", "did you mean 'slimming'"),
        ("methods: {mine: {ranking: l1}}", "give it a method: of its own"),
        ("kimg: 0", "greater than 0"),
        ("sets: 3", "sets is no setting of a comparison .methods, budgets, seeds"),
        ("budgets: 0.2x", "budgets cannot be '0.2x': give a list"),
        ("seeds: []", "at least 1 item"),
        ("methods: []", "at least 1 item"),
        ("methods: {teacher: {method: slimming}}", "no method can be called 'teacher'"),
        ("methods: [{agents: {}}]", "give a list of names"),
        ("[", "cannot be read"),
        ("common: {train: {kimg: 3}}", "train.kimg is set by kimg and share"),
    ],
)
def test_mistakes(text, said, tmp_path):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        Comparison.read(str(tmp_path / "c.yaml"))


def test_a_method_of_ones_own_by_its_name(tmp_path):
    (tmp_path / "c.yaml").write_text("methods: ['gantailor.search.methods.slimming.method:SLIMMING']\nseeds: [0]\n")
    (entry,) = Comparison.read(str(tmp_path / "c.yaml")).entries(tmp_path)
    assert entry.config.method == entry.method and entry.config.train.bits == 8


@pytest.mark.long
def test_a_supernet_is_trained_once_for_all_budgets(tmp_path):
    file = tmp_path / "compare.yaml"
    file.write_text(
        "methods:\n  supernet: {}\n  slimming: {}\n  random: {method: supernet, search: {trials: 8}}\n"
        "  ranked: {method: supernet, ranking: none}\nbudgets: [0.5x, 0.2x]\nseeds: [0, 1]\n"
    )
    entries = Comparison.read(str(file)).entries(tmp_path / "out")
    by_name = {entry.folder.name: entry for entry in entries}
    for name in ("supernet-0.5x-0", "slimming-0.5x-0"):
        (tmp_path / "out" / name).mkdir(parents=True)
        (tmp_path / "out" / name / "supernet.safetensors").write_bytes(name.encode())
    for entry in entries:
        take_supernet(entry, entries)
    assert (by_name["supernet-0.2x-0"].folder / "supernet.safetensors").read_bytes() == b"supernet-0.5x-0"
    assert (by_name["random-0.2x-0"].folder / "supernet.safetensors").read_bytes() == b"supernet-0.5x-0"
    others = ("ranked-0.5x-0", "supernet-0.5x-1", "supernet-0.2x-1", "slimming-0.2x-0", "slimming-0.5x-1")
    assert not any((by_name[name].folder / "supernet.safetensors").exists() for name in others)


def test_shipped_comparisons_are_read(tmp_path):
    """With sections of settings that have a short form too, ``space: {fractions: ...}``."""
    root = Path(__file__).parents[2]
    counts = {
        "examples/compare": 30,
        "benchmarks/hypernetwork": 36,
        "benchmarks/agents": 48,
        "benchmarks/baselines": 63,
        "benchmarks/hypernetwork_ablations": 15,
        "benchmarks/path": 9,
        "benchmarks/path_ablation": 27,
        "benchmarks/path_longer": 6,
        "benchmarks/path_longer_no_discriminator": 6,
        "benchmarks/no_discriminator": 105,
        "benchmarks/path_movement_no_discriminator": 75,
        "benchmarks/path_movement": 4,
        "benchmarks/vintage": 5,
        "benchmarks/facades": 30,
        "benchmarks/facades_resnet": 12,
        "benchmarks/path_stylegan2": 3,
        "benchmarks/five_seeds": 40,
        "benchmarks/recipes": 15,
        "benchmarks/rates": 12,
        "benchmarks/path_fortieth": 3,
        "benchmarks/three_budgets": 18,
        "benchmarks/cartoongan": 12,
        "benchmarks/rates_realesrgan": 6,
        "benchmarks/slimming_ablations": 15,
        "benchmarks/agents_paired": 12,
        "benchmarks/slimming_longer": 6,
        "benchmarks/realesrgan": 21,
    }
    for name, count in counts.items():
        assert len(Comparison.read(str(root / f"{name}.yaml")).entries(tmp_path)) == count, name


class Held:
    """Entries whose runs another process works on for a while."""

    def __init__(self, name, *, busy):
        self.folder, self.busy, self.done, self.free = Path(name), busy, False, False
        self.method, self.budget = name, "0.5x"


def test_what_another_process_holds_is_waited_for(monkeypatch):
    """It is done there, or let go undone and done here; a failure there is one here."""
    entries = [Held("mine", busy=0), Held("theirs", busy=2), Held("left", busy=1), Held("broken", busy=1)]
    done, waited = [], []

    def run(entry, every, report):
        if entry.busy:
            raise BusyError("held")
        if entry.folder.name == "broken":
            raise ConfigError("no such thing")
        if not entry.done:
            done.append(entry.folder.name)
            entry.done = True

    def wait(left):
        waited.append([entry.folder.name for entry in left])
        for entry in left:
            entry.busy -= 1
            entry.done = entry.folder.name == "theirs" and not entry.busy

    monkeypatch.setattr(running, "work_on", run)
    monkeypatch.setattr(running, "wait_for", wait)
    assert running.run_all(entries) == {"broken": "no such thing"}
    assert done == ["mine", "left"] and waited == [["theirs", "left", "broken"], ["theirs"]]
    assert [entry.done for entry in entries] == [True, True, True, False]


def test_the_time_left_is_that_of_all_runs(monkeypatch):
    clock = iter([100.0, 400.0, 1000.0])
    monkeypatch.setattr(running.time, "monotonic", lambda: next(clock))
    entries = [Held(str(number), busy=0) for number in range(6)]
    entries[0].done = True  # before this began
    left = running.TimeLeft(entries)
    assert left.said(0) == ""
    entries[1].done = True
    assert left.said(0) == ", about 20 minutes left in all"  # four of 300 seconds
    entries[2].done = entries[3].done = True
    assert left.said(1) == ", about 5 minutes left in all"  # one of 300: the other has failed


def test_a_folder_is_free_when_nobody_writes_there(tmp_path):
    mine, theirs = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    mine.lock()
    assert not theirs.free
    mine.release()
    assert theirs.free
    theirs.lock()
    assert not mine.free


@pytest.mark.long
def test_results_come_back_with_what_they_are_of(compared):
    file, out = compared
    entries = Comparison.read(str(file)).entries(out)
    frame, wide = results(entries)
    pd.testing.assert_frame_equal(pd.read_csv(out / "results.csv"), frame)
    row = frame[(frame["method"] == "agents") & (frame["seed"] == 1)].iloc[0]
    assert row["convention"] == "macs_true" and row["version"].startswith("gantailor ")
    assert "l1: of the range [-1, 1]; psnr: dB" in row["units"] and row["date"].endswith("+00:00")
    weights = (out / f"agents-{row['budget']}-1" / "subnet.safetensors").read_bytes()
    assert row["weights"] == f"sha256:{hashlib.sha256(weights).hexdigest()[:16]}"
    assert frame["weights"].nunique() == frame["settings"].nunique() == 12 and frame["data"].nunique() == 1
    assert (frame["params"] > 0).all() and set(wide.columns.get_level_values(0)) == {
        *("macs", "kimg", "seconds", "l1", "psnr", "seeds")
    }
    assert "Without a, b: no scores yet." in drawing.markdown(wide, {}, ["a", "b"])


@pytest.mark.long
def test_a_path_is_trained_once_for_all_budgets(described, tmp_path):
    """The second budget's run takes the first one's supernet, and its own net along it."""
    values = yaml.safe_load(described.read_text())
    values |= {"methods": {"path": {"method": "supernet", "space": "path", "search": {"trials": 0}}}, "seeds": [0]}
    file = tmp_path / "paths.yaml"
    file.write_text(yaml.safe_dump({**values, "kimg": 0.04}))
    assert main(["compare", str(file), "--out", str(tmp_path / "out")]) == 0
    found = pd.read_csv(tmp_path / "out" / "results.csv").set_index("budget")["macs"]
    first, second = ((tmp_path / "out" / f"path-{b}-0" / "supernet.safetensors").read_bytes() for b in found.index)
    assert first == second and found["0.3x"] < 0.62 * found["0.5x"]


@pytest.fixture
def rated(tmp_path, tiny_teacher, pairs):
    """Two arms without a rate of their own, one with; rates to be tried."""
    file = tmp_path / "rates.yaml"
    file.write_text(
        "methods:\n"
        "  cut: {method: diversity, ranking: l1, narrowing: 0}\n"
        "  own: {method: diversity, ranking: l1, narrowing: 0, finetune: {lr: 0.0003}}\n"
        "budgets: [0.5x]\nseeds: [0]\nkimg: 0.04\nrates: {lr: [0.001, 1.0e-06], kimg: 0.02}\ncommon:\n"
        f"  options: {{ngf: 8}}\n  teacher: {tiny_teacher}\n"
        f"  data: {{kind: folder, path: {pairs}, size: 32}}\n"
        "  evaluation: {final: [l1], search: l1, search_images: 4}\n"
        f"  train: {{{SMALL}}}\n  finetune: {{{SMALL}}}\n"
    )
    return file


def test_what_no_run_trains_is_scored_once(rated, tmp_path, monkeypatch):
    """Teacher and input by the first run; of other pictures they are scored again, and what is timed is by each."""
    scored, computed = evaluate.scores_to_json, []
    monkeypatch.setattr(evaluate, "scores_to_json", lambda found: computed.append(list(found)) or scored(found))
    values = {**yaml.safe_load(rated.read_text()), "rates": None}
    values["common"]["evaluation"]["final"] = ["l1", "latency_ms"]
    rated.write_text(yaml.safe_dump(values))
    assert main(["compare", str(rated), "--out", str(tmp_path / "out")]) == 0
    first, second = (tmp_path / "out" / f"{name}-0.5x-0" / "scores.json" for name in ("cut", "own"))
    timed = [name for name in computed[0] if name != "l1"]
    assert computed == [["l1", *timed]] * 3 + [timed, timed, ["l1", *timed]]
    one, other = (json.loads(file.read_text()) for file in (first, second))
    assert one["teacher"]["l1"] == other["teacher"]["l1"] and one["input"]["l1"] == other["input"]["l1"]
    assert one["subnet"]["l1"] != other["subnet"]["l1"]
    for row in (one["teacher"]["l1"], one["input"]["l1"]):
        row["of"]["data"], row["value"] = "another", 7.0
    first.write_text(json.dumps(one))
    second.unlink()
    assert main(["compare", str(rated), "--out", str(tmp_path / "out")]) == 0
    assert json.loads(second.read_text())["teacher"]["l1"] == other["teacher"]["l1"]


def test_rates_are_tried_on_the_search_split(rated, tmp_path, capsys):
    assert main(["compare", str(rated), "--out", str(tmp_path / "out")]) == 0
    frame = pd.read_csv(tmp_path / "out" / "rates.csv")
    assert list(frame["method"]) == ["cut", "cut"] and set(frame["lr"]) == {1e-3, 1e-6}
    best = frame.loc[frame["score"].idxmin(), "lr"]
    assert list(frame.loc[frame["chosen"], "lr"]) == [best]
    config = json.loads((tmp_path / "out" / "cut-0.5x-0" / "config.json").read_text())
    assert config["finetune"]["lr"] == best and config["finetune"]["kimg"] == 0.04
    assert json.loads((tmp_path / "out" / "own-0.5x-0" / "config.json").read_text())["finetune"]["lr"] == 0.0003
    assert capsys.readouterr().err.count(": a sample of the split") == 4  # once for each run
    (short,) = (tmp_path / "out" / "rates").glob(f"cut-*-{best:g}")
    assert not (short / "scores.json").exists()  # the test split was not looked at
    said = (tmp_path / "out" / "table.md").read_text()
    assert f"rates, by l1 on the search split: cut {best:g}" in said and "cut took an outermost rate" in said
    capsys.readouterr()
    assert main(["compare", str(rated), "--out", str(tmp_path / "out")]) == 0
    assert "supernet" not in capsys.readouterr().err  # nothing is trained again


def test_rates_are_in_a_dry_run(rated, tmp_path, capsys):
    assert main(["compare", str(rated), "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    listed = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert [Path(line).name for line in listed] == ["cut-0.5x-0-0.001", "cut-0.5x-0-1e-06", "cut-0.5x-0", "own-0.5x-0"]


def test_as_many_minutes_for_every_arm(rated, tmp_path, capsys):
    """A short run of each says how many images those are; what it said stays."""
    asked = yaml.safe_load(rated.read_text().replace("kimg: 0.04\nrates: {lr: [0.001, 1.0e-06], kimg: 0.02}", ""))
    asked |= {"pace": {"minutes": 0.01, "kimg": 0.04}}
    (file := tmp_path / "pace.yaml").write_text(yaml.safe_dump(asked))
    out = tmp_path / "out"
    assert main(["compare", str(file), "--out", str(out)]) == 0
    for arm in ("cut", "own"):
        short = pd.DataFrame(read_rows(out / "pace" / f"{arm}-0.5x-0" / "subnet.ckpt.jsonl"))
        assert not (out / "pace" / f"{arm}-0.5x-0" / "scores.json").exists()
        per_second = float(short["images_per_second"].iloc[-1])
        length = json.loads((out / f"{arm}-0.5x-0" / "config.json").read_text())["finetune"]["kimg"]
        if len(short) == 1:
            assert length == pytest.approx(0.6 * per_second / 1000, rel=1e-6)
        assert f"{arm} at 0.5x {length:.3g}" in (out / "table.md").read_text()
    capsys.readouterr()
    assert main(["compare", str(file), "--out", str(out)]) == 0
    assert "fine-tune" not in capsys.readouterr().err  # nothing is trained again
    assert main(["compare", str(file), "--out", str(tmp_path / "other"), "--dry-run"]) == 0
    listed = [Path(line.partition(":")[0]).parent.name for line in capsys.readouterr().out.splitlines()]
    assert listed == ["pace", "pace", "other", "other"]


def test_every_setting_of_a_comparison_is_in_its_guide():
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "comparing.md").read_text()
    assert [name for name in Comparison.model_fields if f"`{name}`" not in guide] == []
    example = yaml.safe_load(guide.partition("```yaml")[2].partition("```")[0])
    assert len(Comparison.model_validate(example).entries(Path("x"))) == 18


def test_an_arm_that_raises_ends_no_other(rated, tmp_path, monkeypatch, capsys):
    """Whatever it raises, in the short run that is timed too."""
    asked = yaml.safe_load(rated.read_text())
    del asked["rates"], asked["kimg"]
    asked |= {"pace": {"minutes": 0.01, "kimg": 0.04}}
    (file := tmp_path / "pace.yaml").write_text(yaml.safe_dump(asked))

    def failing(run, *, until):
        if "own-" in run.folder.path.name:
            raise ZeroDivisionError("of somebody's own code")
        compress(run, until=until)

    monkeypatch.setattr("gantailor.comparison.pace.compress", failing)
    assert main(["compare", str(file), "--out", str(tmp_path / "out")]) == 2
    assert (tmp_path / "out" / "cut-0.5x-0" / "scores.json").exists()
    assert not (tmp_path / "out" / "own-0.5x-0").exists()
    assert capsys.readouterr().err.splitlines()[-1] == "own-0.5x-0: ZeroDivisionError: of somebody's own code"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kimg": 1}, "leave one of them out"),
        ({"methods": {"own": {"method": "diversity", "finetune": {"kimg": 1}}}}, "own has a kimg of its own"),
        ({"pace": {"minutes": 0, "kimg": 1}}, r"pace\.minutes"),
        ({"pace": {"minutes": 1}}, r"pace\.kimg"),
    ],
)
def test_minutes_or_images(tmp_path, change, said):
    (file := tmp_path / "pace.yaml").write_text(yaml.safe_dump({"pace": {"minutes": 1, "kimg": 1}, **change}))
    with pytest.raises(ConfigError, match=said):
        Comparison.read(str(file))


def test_one_rate_is_no_choice(rated, tmp_path):
    rated.write_text(rated.read_text().replace("[0.001, 1.0e-06]", "[0.001]"))
    with pytest.raises(ConfigError, match=r"rates\.lr"):
        Comparison.read(str(rated))


def test_a_mistake_in_the_settings_is_told_once(described, tmp_path, capsys):
    """Not by every seed, and with its words where nothing else is left to show."""
    wrong = yaml.safe_load(described.read_text())
    wrong["common"] |= {"teacher": "gone.pth"}
    wrong["methods"] = {"agents": {}, "uniform": {"method": "diversity", "ranking": "l1"}}
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump({**wrong, "budgets": ["0.5x"]}))
    assert main(["compare", str(tmp_path / "wrong.yaml"), "--out", str(tmp_path / "out")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines if " failed: " in line] == ["agents-0.5x-0", "uniform-0.5x-0"]
    assert lines[-1].startswith("agents-0.5x-0, uniform-0.5x-0, agents-0.5x-1, uniform-0.5x-1: ")
