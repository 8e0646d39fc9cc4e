"""A user's mistakes are told in one line, before anything is trained or written."""

import shutil
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

import gantailor
from gantailor.cli.main import main
from gantailor.evaluators.metrics.distribution import score_features
from gantailor.pipeline.check import find_mistakes
from gantailor.run.config import Config
from gantailor.run.data import check_counts, note_shared
from gantailor.run.loading import load_config
from gantailor.run.run import Run
from gantailor.supernet.errors import ConfigError, EvaluationError


@pytest.fixture
def told(tmp_path, tiny_teacher, capsys, monkeypatch):
    """Runs ``compress --dry-run`` with more flags on a tiny configuration; what it says."""
    monkeypatch.chdir(tmp_path)
    text = f"options: {{ngf: 8}}\nteacher: {tiny_teacher}\ndata: {{size: 32}}\nbudget: 0.5x\n"
    (tmp_path / "config.yaml").write_text(text)

    def run(*flags):
        assert main(["compress", "config.yaml", "--dry-run", "--out", "run", *flags]) == 2
        assert not (tmp_path / "run").exists()
        return without_bars(capsys.readouterr().err)

    return run


def without_bars(text):
    """Without the bar of a proof, which a slow machine shows."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.lstrip().startswith("proof "))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--device", "cuda:99"], "device 'cuda:99' is not here"),
        (["--discriminator", "none.pth"], "'none.pth' does not exist"),
        (["--ranking", "config.json"], "ranking 'config.json' cannot be read"),
        (["--search.front", "true", "--search.front_cost", "latency_ms@no.json"], "latency profile 'no.json' cannot"),
        (["--region", "nowhere:region"], "region 'nowhere:region' cannot be imported"),
        (["--finetune.perceptual_weight", "1"], "needs evaluation.lpips_features"),
        (
            ["--finetune.perceptual_weight", "1", "--finetune.perceptual_loss", "gram"],
            "gram needs VGG16's weights: set evaluation.lpips_network vgg and lpips_features",
        ),
        (["--space", "default", "--train.method_options", "{reach: 1}"], "are those of a path: set space path"),
        (["--method", "diversity", "--train.method_options", "{reach: 1}"], "has no train.method_options"),
        (["--options", "{ngf: many}"], "'resnet_6blocks' cannot be built with options {'ngf': 'many'}"),
        (
            ["--space", "default", "--search.strategy", "evolution", "--budget", "1.76M"],
            "set search.strategy predictor, whose subnets",
        ),
        (["--evaluation.final", "l1"], "evaluation.final cannot be 'l1': give a list, [l1]"),
    ],
)
def test_before_any_training(told, tmp_path, flags, said):
    (tmp_path / "config.json").write_text("{")
    message = told(*flags)
    assert said in message and len(message.strip().splitlines()) == 1, message


@pytest.mark.parametrize(
    ("generator", "options", "size", "said"),
    [
        ("unet_128", "{ngf: 4}", 32, "data.size 32 does not fit teacher 'unet_128': it must be a multiple of 128"),
        ("unet_128", "{ngf: 4}", 128, "'unet_128' has no 'model.9', whose features 'resnet_6blocks' is compared by"),
        ("resnet_9blocks", "{ngf: 4, input_nc: 1}", 32, "cannot run on the generator's input (1, 3, 32, 32)"),
        ("resnet_9blocks", "{ngf: 4, output_nc: 1}", 32, "makes (1, 1, 32, 32) of an input that 'resnet"),
    ],
)
def test_a_teacher_that_does_not_fit(told, generator, options, size, said):
    torch.save(gantailor.build(generator, **yaml.safe_load(options)).state_dict(), "t.pth")
    flags = ["--teacher", "t.pth", "--teacher.generator", generator, "--teacher.options", options]
    assert said in told(*flags, "--data.size", str(size))


def test_a_mistake_in_yaml_is_told_in_a_line(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("train: [\n")
    assert main(["compress", str(tmp_path / "c.yaml")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_refused_folder_is_not_kept_locked(tmp_path):
    (tmp_path / "config.json").write_text('{"of_another_version": 1}')
    for _ in range(2):
        with pytest.raises(ConfigError, match="made by another version of gantailor"):
            Run(tmp_path, Config()).claim()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("verify resnet_6blocks --input 0,3,32,32", "--input '0,3,32,32' is no shape"),
        ("profile no/laptop.json", "profile 'no/laptop.json' cannot be written: its folder does not exist"),
        ("profile laptop.json --table config.yaml", "latency table 'config.yaml'"),
        ("rank config.yaml --criterion l1 --out config.yaml", "'config.yaml' cannot be used: File exists"),
    ],
)
def test_other_commands(told, line, said, capsys):
    assert main(line.split()) == 2
    message = without_bars(capsys.readouterr().err)
    assert said in message and len(message.strip().splitlines()) == 1, message


def test_a_batch_that_processes_cannot_share_is_told_before_any_training(tmp_path, tiny_teacher, monkeypatch):
    """Also that of the fine-tuning, which comes after the search."""
    monkeypatch.setattr("gantailor.supernet.training.distributed.world", lambda: 3)
    settings = {"teacher": str(tiny_teacher), "options": {"ngf": 8}, "data.size": 32, "train.batch": 6}
    run = Run(tmp_path / "run", load_config(None, {**settings, "finetune.batch": 4}))
    with pytest.raises(ConfigError, match="batch 4 cannot be shared by 3 processes"):
        find_mistakes(run)


LOOK = """
import sys, time
from gantailor.cli.main import main
code = main(["compress", "config.yaml", "--dry-run", "--out", "run"])
slow = [name for name in ("pandas", "scipy.optimize", "scipy.sparse") if name in sys.modules]
print(code, round(time.process_time(), 2), *slow)
"""


@pytest.mark.long
def test_a_broken_picture_is_told_before_anything_slow_is_imported(tmp_path):
    """Within five seconds of a processor, most of them PyTorch's import."""
    for split in ("train", "val", "test"):
        (tmp_path / "data" / split).mkdir(parents=True)
        for number in range(3):
            pixels = np.random.default_rng(number).integers(0, 256, (32, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / split / f"{number}.png")
    broken = tmp_path / "data" / "train" / "1.png"
    broken.write_bytes(broken.read_bytes()[:500])
    (tmp_path / "config.yaml").write_text(
        "options: {ngf: 8}\nteacher: none\ndata: {kind: folder, path: data, size: 32}\nbudget: 0.5x\n"
    )
    done = subprocess.run([sys.executable, "-c", LOOK], cwd=tmp_path, capture_output=True, text=True, check=True)
    code, seconds, *slow = done.stdout.split()
    assert code == "2" and not slow and float(seconds) < 5
    assert "1.png' cannot be read" in done.stderr and len(done.stderr.strip().splitlines()) == 1


def pictures(folder, count, seed, *, side=32):
    """Pairs side by side, other ones for another seed."""
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = np.random.default_rng((seed, number)).integers(0, 255, (side, 2 * side, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}-{number}.png")


def run_on(data, teacher, **more):
    settings = {"options": {"ngf": 8}, "teacher": str(teacher), "budget": "0.5x"}
    settings |= {"data.kind": "folder", "data.path": str(data), "data.size": 32, "train.kimg": 0, "space": "default"}
    return Run(data / "run", load_config(None, settings | {"train.batch": 2, "finetune.batch": 2} | more))


@pytest.mark.parametrize(
    ("metric", "least"), [("fid", 2), ("kid", 2), ("precision", 4), ("recall", 4), ("density", 6), ("coverage", 6)]
)
def test_too_few_test_pictures_for_a_score_are_told_before_any_training(tmp_path, tiny_teacher, metric, least):
    """Behind it they would be told hours later."""
    pictures(tmp_path / "train", 4, 0)
    pictures(tmp_path / "test", least - 1, 1)
    run = run_on(tmp_path, tiny_teacher, **{"evaluation.final": ("l1", metric)})
    message = f"evaluation.final '{metric}' needs at least {least} pictures .* there are {least - 1}"
    with pytest.raises(ConfigError, match=message):
        check_counts(run)
    with pytest.raises(EvaluationError):
        score_features(np.zeros((least - 1, 3), np.float32), np.zeros((9, 3), np.float32), [metric])
    assert np.isfinite(score_features(np.eye(9)[:least], np.eye(9), [metric])[metric])
    run.until = "search"
    check_counts(run)
    pictures(tmp_path / "val", 1, 2)
    run = run_on(tmp_path, tiny_teacher, **{"evaluation.search": metric, "evaluation.final": ("l1",)})
    with pytest.raises(ConfigError, match=f"evaluation.search '{metric}' needs at least {least} .* there are 1;"):
        check_counts(run)


@pytest.mark.parametrize(("shared", "said"), [(0, ""), (2, "2 of 5 test inputs"), (5, "5 of 5 test inputs")])
def test_test_pictures_that_are_trained_on_are_told(tmp_path, tiny_teacher, capsys, shared, said):
    """Whatever they are called, and in whatever file."""
    pictures(tmp_path / "train", 6, 0)
    pictures(tmp_path / "test", 5 - shared, 1) if shared < 5 else (tmp_path / "test").mkdir()
    for number in range(shared):
        Image.open(tmp_path / "train" / f"0-{number}.png").save(tmp_path / "test" / f"copy{number}.bmp")
    note_shared(run_on(tmp_path, tiny_teacher))
    told = capsys.readouterr().err
    assert ("training pictures too" in told) == bool(shared) and said in told


@pytest.fixture
def begun(tmp_path, tiny_teacher, monkeypatch):
    """A run that was searched with relative paths, in ``tmp_path``; searches on it with other ones."""
    monkeypatch.chdir(tmp_path)
    for split, count in (("train", 6), ("test", 4)):
        pictures(tmp_path / "data" / split, count, len(split))
    shutil.copy(tiny_teacher, "teacher.pth")

    def search(*flags, data="data", teacher="teacher.pth", out="runs/a"):
        where = ["--data.kind", "folder", "--data.path", str(data), "--data.size", "32", "--teacher", str(teacher)]
        fast = ["--options", "{ngf: 8}", "--budget", "0.5x", "--space", "default", "--train.kimg", "0"]
        return main(
            ["search", "--out", out, *where, *fast, "--evaluation.search", "l1", "--search.trials", "1", *flags]
        )

    assert search() == 0
    return search


@pytest.mark.long
def test_a_run_knows_what_its_relative_paths_meant(begun, tmp_path, monkeypatch, capsys):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["evaluate", str(tmp_path / "runs/a"), "--metrics", "l1"]) == 0
    assert main(["pareto", "../runs/a", "--pictures", "1", "--out", "drawn"]) == 0
    assert "no sample pictures" not in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").rename(tmp_path / "gone")
    assert main(["evaluate", "runs/a", "--metrics", "l1"]) == 2
    assert "needs its data.path, and there is nothing at 'data', " in capsys.readouterr().err


@pytest.mark.long
def test_data_and_teacher_may_move_but_not_change(begun, tmp_path, capsys):
    """By an absolute path, a link, another name: what lies there counts."""
    assert begun(data=tmp_path / "data", teacher=tmp_path / "teacher.pth") == 0
    (tmp_path / "data").rename(tmp_path / "moved")
    (tmp_path / "teacher.pth").rename(tmp_path / "moved.pth")
    assert begun("--search.trials", "2", data="moved", teacher="moved.pth") == 0
    assert len(pd.read_csv("runs/a/front.csv")) == 2
    for split in ("train", "test"):
        pictures(tmp_path / "other" / split, 4, 9)
    torch.manual_seed(1)
    torch.save(gantailor.build("resnet_6blocks", ngf=8).state_dict(), "other.pth")
    capsys.readouterr()
    for other in ({"data": "other", "teacher": "moved.pth"}, {"data": "moved", "teacher": "other.pth"}):
        assert begun(**other) == 2
        section = "data.path" if other["data"] == "other" else "teacher.weights"
        assert f"'runs/a' began with another {section}, " in capsys.readouterr().err
    assert begun(data="moved", teacher="none") == 2
    assert "other settings (teacher.weights moved.pth -> none)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "url", ["postgresql://gan:hunter2@db/x", "mysql+pymysql://gan:hunter2@db:3306/x", "mysql://db/x?password=hunter2"]
)
def test_a_password_is_stored_for_its_owner_alone_and_shown_to_nobody(tmp_path, url):
    run = Run(tmp_path / "run", load_config(None, {"search.storage": url}))
    run.claim()
    run.release()
    config = tmp_path / "run" / "config.json"
    assert "hunter2" in config.read_text() and stat.S_IMODE(config.stat().st_mode) == 0o600
    assert "hunter2" not in str(run.config.shown()) and "***" in run.config.shown()["search"]["storage"]
    assert run.config.shown() == run.config.model_copy().shown() and run.config.search.storage == url
    other = Run(tmp_path / "other", load_config(None, {"search.storage": f"sqlite:///{tmp_path}/x.db"}))
    other.claim()
    assert stat.S_IMODE((tmp_path / "other" / "config.json").stat().st_mode) == 0o644


@pytest.mark.parametrize("place", ["a file", "in a file", "/proc/nowhere"])
@pytest.mark.parametrize("metrics", ["fid", "l1"])
def test_a_cache_folder_that_cannot_be_made_is_one_line(tmp_path, monkeypatch, capsys, place, metrics):
    for seed, name in enumerate(("made", "real")):
        pictures(tmp_path / name, 4, seed)
        for number, file in enumerate(sorted((tmp_path / name).iterdir())):
            file.rename(tmp_path / name / f"{number}.png")
    (tmp_path / "file").write_text("")
    folder = {"a file": tmp_path / "file", "in a file": tmp_path / "file" / "cache"}.get(place, place)
    monkeypatch.setenv("GANTAILOR_CACHE", str(folder))
    flags = ["--images", str(tmp_path / "made"), "--reference", str(tmp_path / "real"), "--metrics", metrics]
    assert main(["evaluate", *flags]) == 2
    told = capsys.readouterr().err.strip()
    assert "\n" not in told and str(folder) in told and "$GANTAILOR_CACHE" in told


def test_a_warning_of_this_project_is_a_line(tmp_path, monkeypatch, capsys):
    """Without the place in its code; that of others has it."""
    own = Path(gantailor.__file__).parent / "x.py"

    def command(arguments):
        for file in (own, tmp_path / "mine.py"):
            warnings.warn_explicit("too few pictures", UserWarning, str(file), 7)

    monkeypatch.setattr("gantailor.cli.folders.runs.runs", command)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        usual = warnings.showwarning
        assert main(["runs", str(tmp_path)]) == 0
        assert warnings.showwarning is usual
    said = capsys.readouterr().err
    assert said.splitlines()[0] == "warning: too few pictures" and str(own) not in said


@pytest.mark.parametrize("metrics", ["", " , "])
def test_no_metric_is_no_answer(metrics, capsys):
    assert main(["evaluate", "--images", "a", "--reference", "b", "--metrics", metrics]) == 2
    assert "names none; give some, --metrics fid,kid say, or leave it out" in capsys.readouterr().err
