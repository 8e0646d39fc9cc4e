"""What is installed: one name, which works beside a user's own folders of our rooms' names."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import gantailor

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of the checkout, and the folder it was unpacked into."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "checkout"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(copy)], check=True)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*build, str(copy)], check=True, capture_output=True, cwd=folder)
    (file,) = folder.glob("*.whl")
    zipfile.ZipFile(file).extractall(folder / "site")
    return file, folder / "site"


@pytest.mark.long
def test_one_name_is_installed(wheel):
    file, site = wheel
    assert {path.name for path in site.iterdir() if not path.name.endswith(".dist-info")} == {"gantailor"}
    names = zipfile.ZipFile(file).namelist()
    for needed in (
        "gantailor/py.typed",
        "gantailor/zoo/weights/openmoji_teacher.safetensors",
        "gantailor/evaluators/labels/cityscapes.csv",
        "gantailor/export/devices.yaml",
        "gantailor/papers/gan-compression-horse2zebra.yaml",
        "gantailor/reports/report.html",
        "gantailor/supernet/tracing/trace.py",
    ):
        assert needed in names


@pytest.mark.long
def test_beside_folders_of_the_same_names(wheel, tmp_path):
    _, site = wheel
    for name in ("search", "supernet", "evaluators"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not ours')")
    (tmp_path / "zoo.py").write_text("raise RuntimeError('not ours')")

    def run(*arguments):
        environment = {"PYTHONPATH": str(site), "PATH": "", "HOME": str(tmp_path)}
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    found = run("-c", "import gantailor; print(gantailor.__file__, gantailor.Supernet, gantailor.build)")
    assert found.startswith(str(site))
    assert run("-m", "gantailor.cli", "--version").strip() == gantailor.__version__
    assert "free widths" in run("-m", "gantailor.cli", "inspect", "resnet_6blocks")


def test_help_and_mistakes_load_nothing_heavy():
    code = (
        "import sys\nfrom gantailor.cli.main import main\n"
        "for line in (['--version'], ['compress', '--help'], ['compress', 'x.yaml', '--train.kimgg', '3'],\n"
        "             ['evaluate', '--train.kimg', '3'], ['compress', 'missing.yaml'],\n"
        "             ['demo', '--train.kimg', 'many'], ['settings', 'train']):\n"
        "    try:\n        main(line)\n    except SystemExit:\n        pass\n"
        "heavy = {'torch', 'numpy', 'scipy', 'pandas', 'optuna', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
