"""``gantailor.compress(model, ...)``: a PyTorch module in, a PyTorch module out, without a YAML."""

import json
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

import gantailor
from gantailor.supernet.errors import ConfigError, DataError, RunError

pytestmark = pytest.mark.long


class Local(nn.Module):
    """Its class cannot be imported by a name: it is made in a function."""

    def __init__(self, width=16):
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x):
        return torch.tanh(self.last(torch.relu(self.middle(torch.relu(self.first(x))))))


def model_of(seed=0, width=16):
    class Hidden(Local):
        pass

    torch.manual_seed(seed)
    return Hidden(width)


class Negatives(torch.utils.data.Dataset):
    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index >= self.count:
            raise IndexError(index)
        x = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(index)) * 2 - 1
        return x, -x


SETTINGS = {
    "space": "uniform",
    "train": {"kimg": 0},
    "finetune": {"kimg": 0.016, "batch": 4, "gan": "none"},
    "search.trials": 1,
    "evaluation": {"search": "l1", "final": ["l1"]},
    "devices": ["torchscript"],
    "narrowing": 0.0,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out, model = tmp_path_factory.mktemp("given") / "run", model_of().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = {"train": Negatives(8), "test": Negatives(4)}
    run = gantailor.compress(model, data=data, budget="0.4x", settings=SETTINGS, out=out, until="export")
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return run, out


def test_a_module_in_a_narrow_module_out(made):
    run, out = made
    config, narrow = run.subnet()
    assert (type(narrow).__name__ == "Hidden" and narrow.middle.weight.shape[0] == config["first"]) or config["middle"]
    whole = gantailor.Supernet(model_of(), (torch.zeros(1, 3, 16, 16),))
    assert whole.macs(config) <= 0.4 * whole.macs(whole.full_config())
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    for place in (out, out / "export/model.safetensors"):
        loaded = gantailor.load(place, model=model_of(seed=3))  # the architecture alone counts
        assert torch.equal(loaded(x), narrow(x))
    scores = json.loads((out / "scores.json").read_text())
    assert {"input", "teacher", "subnet"} <= set(scores)
    manifest = json.loads((out / "export/manifest.json").read_text())
    assert manifest["provenance"]["teacher"]["sha256"] and manifest["devices"]["torchscript"]["max_difference"] <= 1e-4


def test_the_run_is_opened_with_the_same_module_again(made, monkeypatch):
    from gantailor.zoo.generators import given

    _, out = made
    monkeypatch.setattr(given, "_given", {})  # another process
    with pytest.raises(ConfigError, match=r"the generator was given from Python .*; pass it again"):
        gantailor.load(out)
    with pytest.raises(RunError, match=r"was made with the generator .* pass the same"):
        gantailor.open_run(out, model=model_of(seed=1))
    run = gantailor.open_run(out, model=model_of(), data={"train": Negatives(8), "test": Negatives(4)})
    assert run.subnet()[0] == made[0].subnet()[0]
    again = gantailor.compress(
        model_of(), data={"train": Negatives(8), "test": Negatives(4)}, budget="0.4x", settings=SETTINGS, out=out
    )
    assert again.folder.report.exists()


def test_it_is_handed_over_by_a_process_that_does_not_have_it(made, monkeypatch, tmp_path):
    from gantailor.cli.main import main
    from gantailor.zoo.generators import given

    monkeypatch.setattr(given, "_given", {})
    assert main(["pack", str(made[1]), "--out", str(tmp_path / "a.zip")]) == 0
    with zipfile.ZipFile(tmp_path / "a.zip") as packed:
        names, text = set(packed.namelist()), packed.read("a/README.md").decode()
    assert {"a/model.safetensors", "a/torchscript/apply.py", "a/torchscript/output.png"} <= names
    assert "a/apply.py" not in names and "| `.` |" not in text and "| `torchscript` |" in text


def test_other_processes_do_not_have_it(tmp_path):
    for more, said in (
        ({"search.workers": 2}, "search.workers"),
        ({"search.ray_address": "auto"}, "search.ray_address"),
    ):
        with pytest.raises(ConfigError, match=f"{said} needs other processes, which do not have data and a generator"):
            gantailor.compress(model_of(), data=Negatives(4), settings={**SETTINGS, **more}, out=tmp_path / "r")


class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield torch.zeros(3, 16, 16)


class Broken(Negatives):
    def __getitem__(self, index):
        return 1 / 0


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (torch.utils.data.DataLoader(Negatives(6)), "is a DataLoader; give a torch Dataset"),
        (Endless(), "is an IterableDataset"),
        ((item for item in Negatives(6)), "is a generator; give a torch Dataset"),
        (Negatives(0), "is empty; give items"),
        ({}, "is empty; give Datasets by split"),
        (Broken(6), "failed at item 0 with ZeroDivisionError"),
        ({"train": Broken(6), "test": Negatives(2)}, "failed at item 0 with ZeroDivisionError"),
        ([np.zeros((3, 16, 16), np.float32)] * 6, r"is float32 \[3, 16, 16\]; give a PIL picture"),
    ],
)
def test_data_that_cannot_be_used_is_told_before_its_size_is_read(data, said, tmp_path):
    with pytest.raises(DataError, match=f"^data=.* {said}"):
        gantailor.compress(model_of(), data=data, settings=SETTINGS, out=tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("model", [None, Local, nn.DataParallel(Local()), Local().half(), Local().bfloat16()])
def test_a_generator_that_is_none(model, tmp_path):
    with pytest.raises(ConfigError, match=r"^the generator is .*; give"):
        gantailor.compress(model, data=Negatives(8), settings=SETTINGS, out=tmp_path / "r")


def test_settings_that_are_none(tmp_path):
    with pytest.raises(ConfigError, match=r"settings cannot be \['search.trials'\]; give them by name"):
        gantailor.compress(model_of(), data=Negatives(8), settings=["search.trials"], out=tmp_path / "r")


def test_a_stage_that_is_none(tmp_path):
    with pytest.raises(ConfigError, match="until='trian' is no stage; did you mean 'train'"):
        gantailor.compress(model_of(), data=Negatives(8), settings=SETTINGS, out=tmp_path / "r", until="trian")
    assert not (tmp_path / "r").exists()


def test_settings_lie_over_a_file_and_over_a_mapping(tmp_path):
    """Sections leaf by leaf, short forms too."""
    from gantailor.api import _config

    file = tmp_path / "a.yaml"
    file.write_text("options: {ngf: 8}\ntrain: {kimg: 3, batch: 2}\nspace: uniform\n")
    nested = {"options": {"ngf": 8}, "train": {"kimg": 3, "batch": 2}, "space": "uniform"}
    more = {"budget": "0.3x", "train": {"kimg": 5}, "finetune.kimg": 7, "space": {"multiple": 4}}
    for source in (file, nested):
        config = _config(source, more)
        assert (config.train.kimg, config.train.batch, config.finetune.kimg, config.budget) == (5, 2, 7, "0.3x")
        assert config.options == {"ngf": 8} and config.space.multiple == 4
    assert _config(file, more).space.name == "uniform"
