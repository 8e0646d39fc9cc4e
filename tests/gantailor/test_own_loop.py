"""The parts in a loop of one's own: the README's lines, the example, a search in memory and in a storage."""

import json
import re
import runpy
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from PIL import Image
from torch import nn

import gantailor
from gantailor.cli.main import main
from gantailor.export.devices import Device
from gantailor.export.errors import ExportError
from gantailor.search.budget import Budget
from gantailor.search.errors import SearchError
from gantailor.search.standalone.search import search as search_function
from gantailor.search.strategies.random import random as random_strategy
from gantailor.supernet.errors import BudgetError, ConfigError, SelectionError

ROOT = Path(__file__).parents[2]


def tiny(width=16):
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, width - 4, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Conv2d(width - 4, 3, 1)).eval()


X = torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def ranked():
    supernet = gantailor.Supernet(tiny(), (X[:1],))
    gantailor.rank_channels(supernet)
    return supernet


def distance(narrow):
    return (narrow(X) - tiny()(X)).abs().mean()


def test_a_search_finds_what_trying_all_finds(ranked):
    space = gantailor.space("default", ranked)
    budget = Budget.of(space, "0.3x")
    every = [space.to_config(row) for row in budget.feasible]
    with torch.no_grad():
        by_hand = {config: float(distance(ranked.extract(config))) for config in every}
    found = gantailor.search(ranked, budget="0.3x", score=distance, trials=len(every), strategy="exhaustive")
    assert found.best.score == pytest.approx(min(by_hand.values()), abs=1e-7)
    assert by_hand[found.best.config] == pytest.approx(found.best.score, abs=1e-7)
    assert found.best.macs == ranked.macs(found.best.config) <= 0.3 * ranked.macs(ranked.full_config())
    assert found.best.parameters == sum(p.numel() for p in ranked.extract(found.best.config).parameters())
    assert len(found.table) == len(every) and found.table["score"].min() == found.best.score
    largest = gantailor.search(ranked, budget="0.3x", score=distance, trials=8, minimize=False)
    assert largest.best.score == largest.table["score"].max()


def test_the_same_seed_is_the_same_search(ranked):
    """Also with a strategy of one's own, and a space that was made before."""
    options = {"score": distance, "budget": "macs<=0.5x, params<=0.6x", "trials": 6}
    first, same = (gantailor.search(ranked, seed=3, **options).table for _ in range(2))
    assert first.equals(same)
    told = []
    space = gantailor.space({"name": "uniform"}, ranked)
    own = gantailor.search(
        ranked, space=space, strategy=random_strategy, on_trial=lambda *given: told.append(given), **options
    )
    assert [done for done, _ in told] == list(range(1, 7)) and told[-1][1] in set(own.table["score"])
    assert own.budget.space is space


def test_a_search_with_a_storage_goes_on(ranked, tmp_path):
    """Where it was, for the same weights; Optuna opens it."""
    called = []

    def score(narrow):
        called.append(narrow)
        if len(called) == 5:
            raise KeyboardInterrupt
        return distance(narrow)

    options = {"score": score, "budget": "0.4x", "space": "every", "storage": tmp_path / "j", "study": "mine"}
    with pytest.raises(KeyboardInterrupt):
        gantailor.search(ranked, trials=8, **options)
    stopped = gantailor.search(ranked, trials=8, **options)
    assert len(called) == 9 and len(stopped.table) == 8
    again = gantailor.search(ranked, trials=8, **options)
    assert len(called) == 9 and again.best == stopped.best
    whole = gantailor.search(ranked, trials=8, score=distance, budget="0.4x", space="every")
    assert whole.best == stopped.best, "as if it had not been stopped"
    ranked.generator[0].weight.data *= 2
    assert len(gantailor.search(ranked, trials=3, **options).table) == 3, "other weights, other scores"
    (study,) = optuna.get_all_study_names(stopped.study._storage)
    assert study == "mine" and stopped.study.user_attrs["objectives"] == ["score"]
    with pytest.raises(ConfigError, match="study 'mine' looks for the lowest score, not for the highest; choose"):
        gantailor.search(ranked, trials=3, minimize=False, **options)


def test_mistakes_of_a_search_are_one_line(ranked, tmp_path):
    with pytest.raises(BudgetError, match=r"budget .* cannot be reached"):
        gantailor.search(ranked, budget="0.0001x", score=distance)
    with pytest.raises(ConfigError, match="space 'defalt' is unknown"):
        gantailor.search(ranked, budget="0.4x", space="defalt", score=distance)
    with pytest.raises(ConfigError, match=r"space: multiple cannot be 0: .* than 0; give a name, or settings of"):
        gantailor.search(ranked, budget="0.4x", space={"multiple": 0}, score=distance)
    for name in ("default", "uniform", "every"):
        with pytest.raises(ConfigError, match=f"space '{name}' has no width to search"):
            gantailor.search(ranked, budget="1x", space={"name": name, "freeze": ["*"]}, score=distance)
    for name, value in (("trials", 0), ("trials", "3"), ("trials", 1.5), ("seed", -1)):
        with pytest.raises(ConfigError, match=f"{name} cannot be {value!r}; give a whole number of at least"):
            gantailor.search(ranked, score=distance, **{name: value})
    with pytest.raises(ConfigError, match="strategy cannot be 3; give a name, or a function of"):
        gantailor.search(ranked, score=distance, strategy=3, storage=tmp_path / "j")
    assert not (tmp_path / "j").exists()
    with pytest.raises(ConfigError, match="is no folder to write in"):
        gantailor.search(ranked, budget="0.4x", storage=tmp_path / "none/j", score=distance)
    with pytest.raises(SearchError, match="10 evaluations in a row failed, the last with: ZeroDivisionError"):
        gantailor.search(ranked, budget="0.4x", space="every", score=lambda narrow: 1 / 0)
    with pytest.raises(SearchError, match="no subnet has a score, the last for: ZeroDivisionError"):
        gantailor.search(ranked, budget="0.4x", score=lambda narrow: 1 / 0, trials=2)


@pytest.mark.parametrize(
    "use",
    [
        lambda model: gantailor.search(model, score=distance),
        lambda model: gantailor.space("default", model),
        gantailor.verify,
        gantailor.rank_channels,
    ],
)
def test_a_module_where_a_supernet_is_wanted(use):
    with pytest.raises(ConfigError, match=r"a Sequential is no Supernet; give gantailor\.Supernet\(generator"):
        use(tiny())


def test_what_holds_a_config_is_none(ranked):
    best = gantailor.search(ranked, budget="0.4x", score=distance, trials=1).best
    for use in (ranked.extract, ranked.macs, lambda config: gantailor.narrow(ranked, config, train=None)):
        with pytest.raises(SelectionError, match=r"config cannot be Candidate.*; give its \.config"):
            use(best)
        with pytest.raises(SelectionError, match="config cannot be 3; give a number of channels for each width"):
            use(3)
        with pytest.raises(SelectionError, match="width '0' cannot be None; give a whole number"):
            use({"0": None})


def steps_of(supernet, rows):
    """A step of one's own: it notes the widths that it saw."""
    optimizer = torch.optim.Adam(supernet.parameters(), 1e-3)

    def train(model, step):
        assert model.training
        loss = (model(X) - tiny()(X).detach()).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rows.append((step, dict(model.config)))

    return train


def test_a_net_is_led_down_to_its_widths(ranked):
    config, rows, before = {"0": 5, "2": 4}, [], ranked.generator[0].weight.detach().clone()
    with torch.no_grad():
        at_once = float(distance(ranked.extract(config)))
    narrow = gantailor.narrow(ranked, config, train=steps_of(ranked, rows), steps=40, share=0.5)
    assert [step for step, _ in rows] == list(range(40)) and rows[0][1]["0"] > 5
    assert all(widths == config for _, widths in rows[20:]) and rows[12][1] != config
    costs = [ranked.macs(widths) for _, widths in rows]
    assert costs == sorted(costs, reverse=True)
    assert not narrow.training and narrow[0].weight.shape == (5, 3, 3, 3) and type(narrow) is nn.Sequential
    assert not torch.equal(before, ranked.generator[0].weight), "its own weights are trained"
    with torch.no_grad():
        assert float(distance(narrow)) < 0.8 * at_once
    rows.clear()
    gantailor.narrow(ranked, config, train=steps_of(ranked, rows), steps=2, share=0)
    assert [widths for _, widths in rows] == [config, config]


def test_any_generator_is_narrowed(ranked):
    model, seen = tiny(), []

    def train(net, step):
        seen.append(net)

    config = {"0": 5, "2": 4}
    narrow = gantailor.narrow(model, config, train=train, steps=3, example_inputs=(X[:1],))
    with torch.no_grad():  # ranked by l1, nothing trained
        torch.testing.assert_close(narrow(X), ranked.extract(config)(X))
    assert torch.equal(model[0].weight, tiny()[0].weight)
    with pytest.raises(ConfigError, match="needs example_inputs"):
        gantailor.narrow(model, config, train=train)
    with pytest.raises(SelectionError, match="width '0' cannot be 99"):
        gantailor.narrow(ranked, {"0": 99}, train=train)
    for name, value in (("steps", 0), ("steps", 1.5), ("share", "0.5"), ("share", 2)):
        with pytest.raises(ConfigError, match=f"{name} cannot be {value!r}; give a"):
            gantailor.narrow(ranked, config, train=train, **{name: value})
    assert len(seen) == 3


@pytest.mark.long
def test_any_module_is_exported(ranked, tmp_path):
    narrow, x = ranked.extract({"0": 5}), X.contiguous()
    manifest = gantailor.export(narrow, tmp_path / "out", example_inputs=(x,), licence="MIT")
    assert json.loads((tmp_path / "out/manifest.json").read_text()) == manifest
    inner = json.loads((tmp_path / "out/onnxruntime-cpu/manifest.json").read_text())
    assert (
        inner["max_difference"] < 1e-4 and inner["licence"] == "MIT" and inner["inputs"][0]["shape"] == [1, 3, 12, 12]
    )
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    shades = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(shades).save(pictures / "a.png")
    assert main(["run", str(tmp_path / "out"), str(pictures), "--out", str(tmp_path / "made")]) == 0
    with torch.no_grad():
        expected = narrow(torch.from_numpy(shades).permute(2, 0, 1)[None] / 127.5 - 1)[0]
    made = np.asarray(Image.open(tmp_path / "made/a.png")).transpose(2, 0, 1)
    assert np.abs(made - ((expected + 1) * 127.5).clamp(0, 255).round().numpy()).max() <= 1
    with pytest.raises(ConfigError, match="device 'onxruntime-cpu' is unknown"):
        gantailor.export(narrow, tmp_path, devices=["onxruntime-cpu"], example_inputs=x)


class Made(nn.Module):
    """A convolution, and what is made of its output."""

    def __init__(self, made):
        super().__init__()
        self.conv, self.made = nn.Conv2d(3, 3, 1), made

    def forward(self, x):
        return self.made(self.conv(x))


@pytest.mark.parametrize(
    ("made", "dtype", "said"),
    [
        (lambda y: (y, y), torch.float32, "gives a tuple; give a module whose forward returns one tensor"),
        (lambda y: y / 0 * 0, torch.float32, "makes NaN or infinity of the example; mend its weights"),
        (lambda y: y + torch.randn_like(y), torch.float32, "something else of the same example each time"),
        (lambda y: y, torch.float16, "are in torch.float16; give both in float32"),
        (lambda y: y, torch.float64, "are in torch.float64; give both in float32"),
    ],
)
def test_what_cannot_be_exported_is_told_before_a_device_is_blamed(made, dtype, said, tmp_path):
    with pytest.raises(ExportError, match=said):
        gantailor.export(Made(made).to(dtype), tmp_path, devices="torchscript", example_inputs=X.to(dtype))


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"devices": []}, ConfigError, r"devices cannot be \[\]; give a name or names of profiles"),
        ({"devices": None}, ConfigError, "devices cannot be None; give a name or names of profiles"),
        ({"licence": 3}, ConfigError, "licence cannot be 3; give its name, 'MIT' say, or leave it out"),
        ({"out": "a/file"}, ExportError, r"out='a/file' cannot be written \(File exists\); give a folder"),
        ({"out": "a/file/out"}, ExportError, r"out='a/file/out' cannot be written \(Not a directory\); give a folder"),
    ],
)
def test_mistakes_of_an_export_are_one_line(options, error, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a").mkdir()
    Path("a/file").touch()
    with pytest.raises(error, match=said):
        gantailor.export(tiny(), **{"out": "out", "devices": "torchscript", "example_inputs": X} | options)
    assert not Path("out").exists()


def test_packages_of_these_names_are_still_packages():
    assert gantailor.search.budget.Budget is Budget and gantailor.export.devices.Device is Device
    assert callable(gantailor.search) and callable(gantailor.export)
    assert search_function.__doc__.startswith("Search for the widths")


@pytest.mark.long
def test_the_lines_of_the_readme_run(tmp_path, monkeypatch):
    """As they stand there, up to the whole job, which has tests of its own."""
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(import torch.*?)\nrun = .*?```", (ROOT / "README.md").read_text(), re.DOTALL)
    model = tiny(width=32)
    monkeypatch.setattr(gantailor, "load_teacher", lambda file, generator: model)
    code = code.replace("torch.randn(1, 3, 256, 256)", "X[:1]").replace("trials=60", "trials=6")
    names = {"X": X, "my_score": lambda narrow: (narrow(X) - model(X)).abs().mean()}
    names["my_step"] = lambda net, step: (net(X) - model(X)).abs().mean().backward()
    exec(compile(code.replace("train=my_step", "train=my_step, steps=20"), "README.md", "exec"), names)
    assert (tmp_path / "out/onnxruntime-cpu/model.onnx").exists()


@pytest.mark.long
def test_the_lines_of_a_loop_run(tmp_path, monkeypatch):
    """As they stand in the guide, with a generator, a loader and a score."""
    monkeypatch.chdir(tmp_path)
    guide = (ROOT / "docs" / "guides" / "python.md").read_text()
    (code,) = re.findall(r"```python\n(supernet = gantailor\.Supernet\(model.*?)```", guide, re.DOTALL)
    model = tiny(width=32)
    loader = [X, X.flip(-1)] * 3
    supernet_of = {}

    def my_loss(made):
        return (made - model(loader[0])).abs().mean()

    class Optimizer:
        """Made when the first loss is there: the lines make the supernet."""

        def step(self):
            supernet_of["stepped"] = supernet_of.get("stepped", 0) + 1

        def zero_grad(self):
            pass

    def my_step(net, step):
        my_loss(net(X)).backward()

    names = {"gantailor": gantailor, "torch": torch, "np": np, "model": model, "x": X[:1], "loader": loader}
    names |= {"my_loss": my_loss, "my_step": my_step, "optimizer": Optimizer()}
    names |= {"my_score": lambda narrow: my_loss(narrow(X))}
    code = code.replace("trials=60", "trials=6").replace("train=my_step", "train=my_step, steps=20")
    exec(compile(code, "python.md", "exec"), names)
    assert supernet_of["stepped"] == len(loader)
    assert names["best"].macs <= 0.1 * names["supernet"].macs(names["supernet"].full_config())
    assert (tmp_path / "out/onnxruntime-cpu/model.onnx").exists()


@pytest.mark.long
def test_the_example_of_a_plain_loop(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    loop = runpy.run_path(str(ROOT / "examples/own_loop.py"))["main"]
    narrow, best = loop(steps=12, trials=6, devices=("torchscript",))
    assert (tmp_path / "runs/own_loop/torchscript/model.pt").exists()
    printed = capsys.readouterr().out
    assert "fewer MACs" in printed and best.config.keys() == gantailor.Supernet(narrow, (X,)).full_config().keys()


@pytest.mark.long
def test_a_plain_loop_ends_in_the_pipelines_weights(tmp_path):
    """Supernet, search and fine-tuning of the embedded pictures, in 60 lines of one's own and by ``compress``."""
    file = ROOT / "examples" / "pipeline_by_hand.py"
    assert len(file.read_text().partition("\ndef train")[2].splitlines()) <= 60
    by_hand, best = runpy.run_path(str(file))["main"](kimg=0.032, trials=3, count=8)
    lengths = {"kimg": 0.032, "watch_kimg": 0.0, "ema_kimg": 0.0, "precision": "float32"}
    settings = {"space": {"name": "default"}, "train": lengths, "finetune": lengths, "search": {"trials": 3}}
    settings |= {"budget": "0.3x", "hand_on": "none", "evaluation": {"search": "l1", "search_images": 8}}
    config, narrow = gantailor.compress(settings, out=tmp_path / "run", until="finetune").subnet()
    assert config == best.config
    made = by_hand.state_dict()
    assert all(torch.allclose(made[name], value, atol=1e-6) for name, value in narrow.state_dict().items())
