"""Every generator family and every kind of data of the zoo, and ones from a file outside it."""

import io
import json
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

import gantailor
from gantailor.cli.main import main
from gantailor.run.loading import load_config
from gantailor.supernet.errors import ConfigError, DataError
from gantailor.zoo.conformance import DataKindConformance, GeneratorConformance
from gantailor.zoo.data import DATA_KINDS
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.read import read_domains, read_split
from gantailor.zoo.generators import GENERATORS
from gantailor.zoo.generators.record import Generator, find_generator

PICTURE = ((3, 32, 32),)


class TestResnet6Blocks(GeneratorConformance):
    name, options, shapes = "resnet_6blocks", {"ngf": 8}, PICTURE


class TestResnet9Blocks(GeneratorConformance):
    name, options, shapes = "resnet_9blocks", {"ngf": 8, "dropout": True}, PICTURE


class TestMobileResnet6Blocks(GeneratorConformance):
    name, options, shapes = "mobile_resnet_6blocks", {"ngf": 8}, PICTURE


class TestMobileResnet9Blocks(GeneratorConformance):
    name, options, shapes = "mobile_resnet_9blocks", {"ngf": 8, "norm": "batch"}, PICTURE


class TestUnet128(GeneratorConformance):
    name, options, shapes = "unet_128", {"ngf": 4, "norm": "instance"}, ((3, 256, 256),)


class TestUnet256(GeneratorConformance):
    name, options = "unet_256", {"ngf": 4}


@pytest.mark.long
class TestSpade(GeneratorConformance):
    name, options = "spade", {"ngf": 4, "label_channels": 8, "size": (64, 128)}


class TestMobileSpade(GeneratorConformance):
    name, options = "mobile_spade", {"ngf": 4, "label_channels": 8, "size": (64, 128)}


class TestMunit(GeneratorConformance):
    name, options, shapes = "munit", {"ngf": 4, "mlp_dim": 8}, PICTURE


class TestMobileMunit(GeneratorConformance):
    name, options, shapes = "mobile_munit", {"ngf": 4, "mlp_dim": 8}, PICTURE


class TestMunitInGivenStyles(GeneratorConformance):
    name, options, shapes = "munit", {"ngf": 4, "mlp_dim": 8, "style_dim": 6}, (*PICTURE, (6,))


class TestCartoonGan(GeneratorConformance):
    name, options, shapes = "cartoongan", {"ngf": 4}, PICTURE


class TestSrvgg(GeneratorConformance):
    name, options, shapes = "srvgg", {"num_feat": 8, "num_conv": 2}, ((3, 18, 20),)
    bounded = False


class TestSrvggInRelu(GeneratorConformance):
    name, options, shapes = "srvgg", {"num_feat": 6, "num_conv": 1, "upscale": 3, "act_type": "relu"}, ((3, 18, 20),)
    bounded = False


RRDB = {"num_feat": 8, "num_block": 1, "num_grow_ch": 4}


class TestRrdbNet(GeneratorConformance):
    name, options, shapes = "rrdbnet", RRDB, ((3, 18, 20),)
    bounded = False


class TestRrdbNetOfScale2(GeneratorConformance):
    name, options, shapes = "rrdbnet", {**RRDB, "scale": 2}, ((3, 18, 20),)
    bounded = False


class TestRrdbNetOfScale1(GeneratorConformance):
    name, options, shapes = "rrdbnet", {**RRDB, "scale": 1}, ((3, 20, 24),)
    bounded = False


class TestStyleGan2(GeneratorConformance):
    name, options = "stylegan2", {"size": 16, "style_dim": 16, "n_mlp": 2, "channels": {4: 16, 8: 8, 16: 8}}
    bounded = False


OWN_GENERATOR = """
from torch import nn
from gantailor.zoo.generators.record import Generator

class Net(nn.Module):
    def __init__(self, *, width=8):
        super().__init__()
        self.input_shape = (3, 32, 32)
        self.stem, self.head = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)
        self.feature_layers = ("stem",)

    def forward(self, x):
        return self.head(self.stem(x).relu()).tanh()

OWN = Generator(
    name="own",
    build=Net,
    read=lambda checkpoint: dict(checkpoint.get("net", checkpoint)),
    options_of_state=lambda state: {"width": len(state["stem.bias"])} if "stem.bias" in state else {},
    defaults=lambda own: {"train": {"kimg": 3.0}},
)
TEXT = "no generator"

def demanding(width, *more, height=3, **others):
    return Net(width=width)
"""

OWN_DATA = """
import numpy as np
from gantailor.supernet.errors import DataError
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.record import DataKind

def read(config, split):
    seed = (config.options.get("seed", 0), len(split))
    pictures = np.random.default_rng(seed).integers(0, 256, (6, config.size, config.size, 3), dtype=np.uint8)
    return Pairs(pictures, 255 - pictures, tuple("abcdef"), f"own/{split}")

def check(config):
    if config.options.get("seed", 0) < 0:
        raise DataError(f"data.options.seed cannot be {config.options['seed']}; give 0 or more")

OWN = DataKind(name="own", read=read, check=check)

import torch
from torch.utils.data import Dataset

class Faces(Dataset):
    def __init__(self, split, seed=0):
        self.random = np.random.default_rng((seed, len(split)))
        self.pictures = self.random.integers(0, 256, (6, 20, 24, 3), dtype=np.uint8)

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, index):
        return self.pictures[index], 255 - self.pictures[index]

class Floats(Faces):
    def __getitem__(self, index):
        x = torch.from_numpy(self.pictures[index][:16, :16]).permute(2, 0, 1) / 127.5 - 1
        return {"inputs": {"image": x, "mask": (x[:1] > 0).float(), "style": x[0, 0]}, "target": -x, "class": index % 2}

def floats(split, seed=0):
    return None if split == "val" else Floats(split, seed)
"""


@pytest.fixture(autouse=True)
def own_files(tmp_path_factory, monkeypatch):
    """Two modules of a user, in a folder of their own."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_generator.py").write_text(OWN_GENERATOR)
    (folder / "own_data.py").write_text(OWN_DATA)
    monkeypatch.syspath_prepend(str(folder))
    yield
    for name in ("own_generator", "own_data"):
        sys.modules.pop(name, None)


class TestOwnRecord(GeneratorConformance):
    name, options = "own_generator:OWN", {"width": 5}


class TestOwnFactory(GeneratorConformance):
    name, options = "own_generator:Net", {"width": 5}


def test_every_family_is_tested():
    tested = {case.name for case in GeneratorConformance.__subclasses__()}
    assert set(GENERATORS) <= tested
    assert all(find_generator(name).name == name for name in GENERATORS)
    assert set(DATA_KINDS) <= {case.kind for case in DataCase.__subclasses__()}


def test_a_record_reads_what_a_state_tells(tmp_path):
    made = gantailor.build("own_generator:OWN", width=6)
    torch.save({"net": made.state_dict()}, tmp_path / "net.pth")
    read = gantailor.load_teacher(tmp_path / "net.pth", generator="own_generator:OWN")
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in read.state_dict().items())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet_8blocks", "generator 'resnet_8blocks' is unknown; did you mean 'resnet_9blocks'"),
        (
            "own_generator:TEXT",
            "generator 'own_generator:TEXT' is a str, and was not called; give a Generator record, or a class",
        ),
        ("own_generator:Nte", "generator 'own_generator:Nte' cannot be imported"),
        ("own_generator:demanding", "generator 'own_generator:demanding' needs option 'width'; give it"),
    ],
)
def test_mistakes_in_a_generators_name(name, message):
    with pytest.raises(ConfigError) as error:
        gantailor.build(name)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_mistakes_in_a_record(tmp_path):
    with pytest.raises(ConfigError, match=r"training task 'stylegan' is unknown; did you mean 'stylegan2'"):
        Generator(name="mine", build=dict, task="stylegan")
    with pytest.raises(ConfigError, match=r"no teacher is shipped for 'resnet_6blocks' with options \{'ngf': 64\}"):
        find_generator("resnet_6blocks").teacher_file({"ngf": 64})
    with pytest.raises(ConfigError, match="has no option 'nfg'; did you mean 'ngf'"):
        find_generator("resnet_6blocks").teacher_file({"nfg": 48})
    with pytest.raises(ConfigError, match="checkpoints of generator 'unet_256' have no side"):
        find_generator("unet_256").state_of({}, side="a")


def save(folder, count, size, seed, *, width=None, ids=False):
    """Random pictures, or maps of three ids."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        shape = (size, width or size) if ids else (size, width or size, 3)
        Image.fromarray(random.integers(0, 3 if ids else 256, shape, dtype=np.uint8)).save(folder / f"{number}.png")


class DataCase(DataKindConformance):
    kind = ""

    @pytest.fixture(autouse=True)
    def _own_cache(self, tmp_path_factory, monkeypatch):
        if self.kind != "openmoji":  # drawn once on a machine
            monkeypatch.setenv("GANTAILOR_CACHE", str(tmp_path_factory.mktemp("cache")))

    def made(self, folder, seed):
        raise NotImplementedError

    def config(self, folder):
        return self.made(folder, 0)

    def changed(self, folder):
        return self.made(folder, 1)

    def touch(self, folder):
        files = sorted(file for file in folder.rglob("*.png") if "train" in str(file.relative_to(folder)))
        if not files:
            return False
        pixels = np.array(Image.open(files[0]))
        pixels[3, 3] = 2 - pixels[3, 3] if pixels.ndim == 2 else 255 - pixels[3, 3]
        Image.fromarray(pixels).save(files[0])
        return True


class TestOpenMoji(DataCase):
    kind = "openmoji"

    def made(self, folder, seed):
        return DataConfig(kind="openmoji", size=16 + seed)


class TestFolder(DataCase):
    kind = "folder"

    def made(self, folder, seed):
        for number, name in enumerate(("train", "search", "test")):
            save(folder / name, 5, 20, (seed, number), width=40)
        return DataConfig(kind="folder", path=str(folder), size=16)


class TestWideGreyFolder(DataCase):
    """Pairs of another shape, from grey to colour."""

    kind = "folder"

    def made(self, folder, seed):
        for number, name in enumerate(("train", "search", "test")):
            save(folder / name, 5, 20, (seed, number), width=40)
        return DataConfig(kind="folder", path=str(folder), size=[16, 24], channels=[1, 3], fit="scale-and-crop")

    def test_domains(self, tmp_path):
        domains = read_domains(self.config(tmp_path))
        assert (domains.a.shape[1:], domains.b.shape[1:]) == ((16, 24, 1), (16, 24, 3))


class TestUnpairedFolder(DataCase):
    kind = "folder"

    def made(self, folder, seed):
        save(folder / "train", 5, 20, seed)
        save(folder / "val", 3, 20, seed + 2)
        return DataConfig(kind="folder", path=str(folder), size=16, direction="unpaired")

    def test_domains(self, tmp_path):
        with pytest.raises(DataError, match="two sets of pictures"):
            read_domains(self.config(tmp_path))


class TestDomains(DataCase):
    kind = "domains"

    def made(self, folder, seed):
        for number, name in enumerate(("trainA", "trainB", "testA", "testB")):
            save(folder / name, 5 - number, 20, (seed, number))
        return DataConfig(kind="domains", path=str(folder), size=16)

    def test_real_pictures_of_the_other_domain(self, tmp_path):
        config = self.config(tmp_path)
        assert read_split(config, "train").batch(np.arange(2))[1] is None, "the teacher's outputs are the targets"
        test = read_split(config, "test")
        assert len(test) == 3 and not test.paired and test.other(np.arange(2), None).shape == (2, 3, 16, 16)


class TestFolders(DataCase):
    kind = "folders"

    def made(self, folder, seed):
        for number, name in enumerate(("train/A", "train/B", "test/A", "test/B")):
            save(folder / name, 5 - number % 2, 20, (seed, number))
        return DataConfig(kind="folders", path=str(folder), size=16, channels=[1, 3])


class TestList(DataCase):
    kind = "list"

    def made(self, folder, seed):
        save(folder / "train pictures", 6, 20, seed)
        rows = [f"train pictures/{n}.png,train pictures/{n + 3}.png,{n},train" for n in range(3)]
        rows += ["train pictures/5.png,train pictures/4.png,1,test"]
        (folder / "all.csv").write_text("\n".join(["input,target,class,split", *rows]))
        return DataConfig(kind="list", path=str(folder / "all.csv"), size=16)


class TestClasses(DataCase):
    kind = "classes"

    def made(self, folder, seed):
        for number, name in enumerate(("train/cat", "train/dog", "val/dog")):
            save(folder / name, 3, 20, (seed, number))
        return DataConfig(kind="classes", path=str(folder), size=16)


class TestZip(DataCase):
    kind = "zip"

    def made(self, folder, seed, changed=False):
        random = np.random.default_rng(seed)
        with zipfile.ZipFile(folder / "dataset.zip", "w") as archive:
            names = [f"{number // 2:05d}/img{number:08d}.png" for number in range(5)]
            for name in names:
                pixels = random.integers(0, 256, (20, 20, 3), dtype=np.uint8)
                pixels[3, 3, 0] ^= changed
                buffer = io.BytesIO()
                Image.fromarray(pixels).save(buffer, "PNG")
                archive.writestr(name, buffer.getvalue())
            labels = [[name, number % 3] for number, name in enumerate(names)]
            archive.writestr("dataset.json", json.dumps({"labels": labels}))
        return DataConfig(kind="zip", path=str(folder / "dataset.zip"), size=16)

    def touch(self, folder):
        self.made(folder, 0, changed=True)
        return True


class TestTensors(DataCase):
    kind = "tensors"

    def made(self, folder, seed, changed=0.0):
        random = np.random.default_rng(seed)
        for split in ("train", "test"):
            arrays = {name: random.uniform(-1, 1, (4, 3, 16, 16)).astype(np.float32) for name in ("image", "target")}
            arrays["image"][0, 1, 2, 3] += changed
            mask = random.integers(0, 2, (4, 1, 16, 16), dtype=np.uint8) * 255
            style = random.normal(size=(4, 5))
            np.savez(folder / f"{split}.npz", image=arrays["image"], mask=mask, style=style, target=arrays["target"])
        return DataConfig(kind="tensors", path=str(folder), size=16)

    def touch(self, folder):
        self.made(folder, 0, changed=1e-3)
        return True


class TestSuperResolution(DataCase):
    """Tiles of large pictures, made small."""

    kind = "super_resolution"

    def made(self, folder, seed):
        for number, name in enumerate(("train", "test")):
            save(folder / name, 3, 70 + number, (seed, number), width=40)
        return DataConfig(kind=self.kind, path=str(folder), size=16, scale=2)


class TestDataset(DataCase):
    """A torch Dataset of uint8 pictures of any size."""

    kind = "own_data:Faces"

    def made(self, folder, seed):
        return DataConfig(kind=self.kind, size=16, options={"seed": seed})


class TestFloatDataset(DataCase):
    kind = "own_data:floats"

    def made(self, folder, seed):
        return DataConfig(kind=self.kind, size=16, options={"seed": seed})


class TestLabels(DataCase):
    kind = "labels"

    def made(self, folder, seed):
        for number, split in enumerate(("train", "val")):
            save(folder / f"{split}_label", 4, 20, (seed, number), ids=True)
            save(folder / f"{split}_inst", 4, 20, (seed, number, 1), ids=True)
            save(folder / f"{split}_img", 4, 20, (seed, number, 2))
        return DataConfig(kind="labels", path=str(folder), size=16, classes=3)


class TestOwnData(DataCase):
    kind = "own_data:OWN"

    def made(self, folder, seed):
        return DataConfig(kind="own_data:OWN", size=16, options={"seed": seed})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "folder"}, "data.kind is folder, but data.path is missing; name a folder: --data.path FOLDER"),
        (
            {"kind": "openmoji", "options": {"fold": 3}},
            "data.options cannot be {'fold': 3}: data.kind openmoji",
        ),
        ({"kind": "own_data:OWN", "options": {"seed": -1}}, "data.options.seed cannot be -1; give 0 or more"),
        ({"kind": "own_data:read"}, "data kind 'own_data:read' is a function; give a DataKind record"),
        ({"kind": "own_data:OWNN"}, "data kind 'own_data:OWNN' cannot be imported"),
        ({"kind": "foldr"}, "data kind 'foldr' is unknown; did you mean 'folder'"),
    ],
)
def test_mistakes_in_data(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read_split(DataConfig(**settings), "train")


def test_names_need_no_torch():
    code = (
        "import sys; from gantailor.zoo.data.config import DataConfig; from gantailor.zoo.generators.record import "
        "find_generator; DataConfig(kind='labels'); find_generator('stylegan2').defaults({}); "
        "assert not {'torch', 'numpy', 'scipy'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.long
def test_a_run_with_a_generator_and_data_from_outside(tmp_path):
    """Teacher and compression, by their names alone."""
    common = ["--generator", "own_generator:OWN", "--options", "{width: 6}"]
    common += ["--data.kind", "own_data:OWN", "--data.size", "32"]
    common += ["--train.kimg", "0.008", "--train.batch", "2", "--train.ndf", "4"]
    assert main(["teacher", *common, "--train.preset", "teacher-pix2pix", "--out", str(tmp_path / "teacher")]) == 0
    weights = str(tmp_path / "teacher" / "teacher.safetensors")
    (tmp_path / "run.yaml").write_text("budget: 0.8x\nsearch: {trials: 2}\nevaluation: {final: [l1]}\n")
    finetune = ["--finetune.kimg", "0.008", "--finetune.batch", "2", "--finetune.ndf", "4"]
    flags = [*common, *finetune, "--teacher", weights, "--out", str(tmp_path / "run")]
    assert main(["compress", str(tmp_path / "run.yaml"), *flags]) == 0
    assert (tmp_path / "run" / "subnet.safetensors").exists()
    assert load_config(None, {"generator": "own_generator:OWN"}).train.kimg == 3, "the record's defaults"
