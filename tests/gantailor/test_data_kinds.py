"""Every kind of data from the files to report and ONNX, and data from Python; a user's mistakes are one line."""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

import gantailor
from gantailor.cli.main import main
from gantailor.supernet.errors import ConfigError, DataError, RunError
from gantailor.zoo.data import DATA_KINDS
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.read import read_split

OWN = '''
import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset


class Net(nn.Module):
    """Two convolutions; a class, where there are any, shifts the channels between them."""

    def __init__(self, width=6, classes=0):
        super().__init__()
        self.input_shapes = ((3, 32, 32),) + (((classes,),) if classes else ())
        self.first, self.last = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)
        if classes:
            self.shift = nn.Linear(classes, width)

    def forward(self, x, label=None):
        x = self.first(x)
        if label is not None:
            x = x + self.shift(label)[:, :, None, None]
        return torch.tanh(self.last(torch.relu(x)))


class Negatives(Dataset):
    """Pictures, and what they look like as negatives."""

    def __init__(self, split, count=12):
        random = np.random.default_rng(len(split))
        self.pictures = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, index):
        return self.pictures[index], 255 - self.pictures[index]
'''


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    """The current folder with a user's module, a cache, and a settings file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("GANTAILOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delitem(sys.modules, "own", raising=False)
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings()))
    yield tmp_path
    sys.modules.pop("own", None)


def settings(**data):
    recipe = {"kimg": 0.024, "batch": 4, "gan": "none", "ndf": 4}
    return {
        "generator": "own:Net",
        "options": {"width": 6},
        "teacher": "none",
        "data": {"size": 32, **data},
        "budget": "0.6x",
        "train": {**recipe, "output_weight": 10},
        "finetune": {**recipe, "output_weight": 10},
        "search": {"trials": 3},
        "space": {"multiple": 1},
        "evaluation": {"search": "l1", "final": ["l1"], "search_images": 4},
    }


def pictures(folder, count=6, seed=0):
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        Image.fromarray(random.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(folder / f"{number}.png")


def compressed(own, *flags, inputs=1):
    """The ONNX model's answer of a whole run, beside that of the exported weights."""
    assert main(["compress", "run.yaml", "--out", "run", *flags]) == 0
    assert (own / "run" / "report.html").stat().st_size
    return exported(own, inputs=inputs)


def exported(own, *, inputs=1):
    (model,) = (own / "run" / "export").rglob("*.onnx")
    session = onnxruntime.InferenceSession(model)
    assert len(session.get_inputs()) == inputs
    random = np.random.default_rng(0)
    shapes = [[1, *given.shape[1:]] for given in session.get_inputs()]
    given = [random.uniform(-1, 1, shape).astype(np.float32) for shape in shapes]
    (answer,) = session.run(None, {one.name: value for one, value in zip(session.get_inputs(), given, strict=True)})
    narrow = gantailor.load(own / "run" / "export" / "model.safetensors")
    with torch.no_grad():
        wanted = narrow(*map(torch.from_numpy, given)).numpy()
    np.testing.assert_allclose(answer, wanted, atol=1e-5)
    assert answer.shape == (1, 3, 32, 32)
    return json.loads((own / "run" / "scores.json").read_text())["subnet"]["l1"]["provenance"]


@pytest.mark.long
def test_two_folders(own):
    for number, side in enumerate(("train/A", "train/B", "test/A", "test/B")):
        pictures(own / "data" / side, 12 if "train" in side else 5, number)
    told = compressed(own, "--data.kind", "folders", "--data.path", "data", "--data.direction", "BtoA")
    assert told["reference"] == "data/test/A@32" and told["images"] == 5


@pytest.mark.long
def test_a_list_with_classes(own):
    pictures(own / "data" / "all", 18)
    rows = [f"all/{n}.png,all/{n + 6}.png,{'abc'[n % 3]},{'train' if n < 8 else 'test'}" for n in range(12)]
    (own / "data" / "list.csv").write_text("\n".join(["input,target,class,split", *rows]))
    flags = ["--data.kind", "list", "--data.path", "data/list.csv", "--options", "{classes: 3}"]
    assert compressed(own, *flags, inputs=2)["images"] == 4


@pytest.mark.long
def test_an_archive(own):
    """Pictures without targets, and a trained teacher's outputs in their place."""
    pictures(own / "data", 12)
    torch.manual_seed(0)
    torch.save(gantailor.build("own:Net", width=6).state_dict(), own / "teacher.pt")
    with zipfile.ZipFile(own / "dataset.zip", "w") as out:
        for file in sorted((own / "data").iterdir()):
            out.write(file, f"00000/{file.name}")
        out.writestr("dataset.json", json.dumps({"labels": [[f"00000/{n}.png", n % 2] for n in range(12)]}))
    flags = ["--data.kind", "zip", "--data.path", "dataset.zip", "--teacher", "teacher.pt", "--data.split", "all"]
    flags += ["--evaluation.search", "l1[teacher]", "--evaluation.final", "[l1]"]
    assert main(["compress", "run.yaml", "--out", "run", *flags]) == 0
    (model,) = (own / "run" / "export").rglob("*.onnx")
    assert onnxruntime.InferenceSession(model).get_inputs()[0].shape[1:] == [3, 32, 32]
    scores = json.loads((own / "run" / "scores.json").read_text())["subnet"]
    assert scores["l1[teacher]"]["provenance"]["images"] == 12


@pytest.mark.long
def test_a_dataset_by_its_name_in_several_processes(own):
    flags = ["--data.kind", "own:Negatives", "--data.options", "{count: 8}", "--workers", "2", "--data.workers", "1"]
    assert compressed(own, *flags)["reference"] == "own:Negatives/test"
    front = (own / "run" / "front.csv").read_text().splitlines()
    assert len(front) >= 3, "both processes could read it"


@pytest.mark.long
def test_a_dataset_from_python(own):
    import own as mine

    data = {"train": mine.Negatives("train"), "test": mine.Negatives("test", 5)}
    run = gantailor.compress(settings(), data=data, out="run")
    assert run.config.data.kind.startswith("python:")
    told = exported(own)
    assert told["images"] == 5 and told["reference"] == f"{run.config.data.kind}/test"
    stored = json.loads((own / "run" / "config.json").read_text())
    assert stored["data"]["kind"] == run.config.data.kind
    again = gantailor.open_run("run", data={"train": mine.Negatives("train"), "test": mine.Negatives("test", 5)})
    assert len(again.setup.data("test")) == 5
    with pytest.raises(RunError, match=r"was made with the data python:.*; pass the same"):
        gantailor.open_run("run", data=mine.Negatives("train", 7))
    with pytest.raises(RunError, match=r"holds a run with other settings \(data\.kind python:"):
        gantailor.compress(settings(), data=mine.Negatives("train", 7), out="run")


SCRIPT = """
import sys
import gantailor
from own import Negatives
gantailor.compress("run.yaml", data=Negatives("train"), out=sys.argv[1], until="train")
"""


@pytest.mark.long
def test_data_from_python_under_torchrun(own):
    """Each process passes it; together they are one process."""
    (own / "script.py").write_text(SCRIPT)
    for out, how in (("one", []), ("two", ["-m", "torch.distributed.run", "--nproc-per-node", "2"])):
        command = [sys.executable, *how, "script.py", out]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
    one, two = (load_file(own / out / "supernet.safetensors") for out in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-4, rtol=0)


def test_the_dataset_of_the_documentation(own, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    (said,) = re.findall(r"# data: (\{.*\})", code)
    (own / "mine.py").write_text(code)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    data = read_split(DataConfig(**yaml.safe_load(said)), "test")
    inputs, targets = data.batch(np.arange(12))
    assert inputs.shape == (12, 3, 32, 32) and torch.allclose(inputs, -targets, atol=1e-6)
    sys.modules.pop("mine")
    named = set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE))
    assert named == set(DATA_KINDS), "the table has every kind"


def test_a_run_of_data_from_python_in_another_process(own, capsys, monkeypatch):
    import own as mine

    from gantailor.zoo.data.kinds import dataset

    gantailor.compress(settings(), data=mine.Negatives("train"), out="run", until="check")
    monkeypatch.setattr(dataset, "_given", {})
    capsys.readouterr()
    with pytest.raises(DataError, match="this process does not have it; pass it again"):
        gantailor.open_run("run").setup.data("test")
    assert main(["compress", "run/config.json", "--out", "run"]) == 2
    said = capsys.readouterr().err.removeprefix("== check\n").strip().splitlines()
    assert len(said) == 1 and "the run's data was given from Python (python:" in said[0]


def test_data_from_python_is_this_process_alone():
    import own as mine

    for given in ({"search": {"trials": 3, "workers": 2}}, {"search.workers": 2}):
        with pytest.raises(
            ConfigError, match=r"search\.workers needs other processes, which do not have data from Python"
        ):
            gantailor.compress({**settings(), **given}, data=mine.Negatives("train"), out="run")
    with pytest.raises(ConfigError, match=r"data= was given, and data\.path"):
        gantailor.compress(settings(path="x"), data=mine.Negatives("train"), out="run")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["--data.kind", "folders", "--data.path", "nowhere"],
            "'nowhere' does not exist; give a folder that holds both",
        ),
        (["--data.kind", "folders"], "data.kind is folders, but data.path is missing"),
        (["--data.kind", "folders", "--data.path", ".", "--data.sides", "[A, A]"], "give two names of folders, [A, B]"),
        (["--data.kind", "list", "--data.path", "run.yaml"], "is no list: give a file ending in .csv"),
        (["--data.kind", "zip", "--data.path", "run.yaml"], "archive 'run.yaml' cannot be read"),
        (["--data.kind", "classes", "--data.path", "."], "does not exist; give one with a folder for each class"),
        (["--data.kind", "tensors", "--data.path", "."], "has no tensors of train"),
        (["--data.kind", "own:Negative"], "data kind 'own:Negative' cannot be imported"),
        (
            ["--data.kind", "own:Negatives", "--data.options", "{cuont: 3}"],
            "got an unexpected keyword argument 'cuont'",
        ),
        (["--data.kind", "own:OWN"], "data kind 'own:OWN' cannot be imported"),
        (["--data.kind", "own:np"], "is a module; give a DataKind record"),
        (["--data.kind", "flders"], "did you mean 'folders'"),
    ],
)
def test_a_mistake_is_a_line(own, capsys, flags, said):
    assert main(["compress", "run.yaml", "--out", "run", "--dry-run", *flags]) == 2
    message = capsys.readouterr().err.removeprefix("== check\n").strip()
    assert said in message and len(message.splitlines()) == 1, message
