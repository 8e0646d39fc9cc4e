"""The tests that every export target passes, one's own too.

    class TestMine(TargetConformance):
        runtime = "my_module:TARGET"

``pytest`` runs them; a target whose packages are missing is skipped. Override ``generator`` and ``example`` where yours
takes other ones.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import SkipTest
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.export.checking import LARGEST, LEAST_PSNR, psnr
from gantailor.export.devices import Device
from gantailor.export.errors import ExportError
from gantailor.export.export import Exported, export_model, load_runner
from gantailor.export.sides import PROVED, at_sides, sides_of
from gantailor.export.target import PRECISIONS, Target, check_device, find_target

_BARE = """
import runpy, sys
sys.modules["gantailor"] = None  # importing it is an error
sys.argv = ["bench.py", "--runs", "2", "--warm-up", "1"]
runpy.run_path({path!r}, run_name="__main__")
"""


def _without(missing: str, real: Callable[..., Any], name: str, package: str | None = None) -> Any:
    """``find_spec`` where one package is not installed."""
    return None if name == missing else real(name, package)


def _refused(profile: Device, message: str) -> None:
    """Asserts that a device is told off in one line that holds the message."""
    try:
        check_device(profile)
    except ExportError as error:
        assert message in str(error) and "\n" not in str(error), str(error)
    else:
        raise AssertionError(f"{profile.name} was not refused")


def _profile(runtime: str, *, precision: str = "float32", batch: str = "static", size: str = "fixed") -> Device:
    """A device of this runtime."""
    said = {"runtime": runtime, "precision": precision, "batch": batch, "size": size}
    return Device.model_validate({"name": f"conformance-{precision}-{batch}-{size}", **said})


class TargetConformance:
    """Inherit and say which target.

    Attributes:
        runtime: a built-in's name, or ``module:name``.
    """

    runtime = ""
    _folder: tempfile.TemporaryDirectory[str]

    @classmethod
    def setup_class(cls) -> None:
        """A folder in which each export is made once."""
        cls._folder = tempfile.TemporaryDirectory()

    @classmethod
    def teardown_class(cls) -> None:
        cls._folder.cleanup()

    def generator(self) -> nn.Module:
        """In eval mode, with norms, pads and enough weights that sizes of files say something."""
        torch.manual_seed(0)
        return nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(3, 64, 3),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1, bias=False),
            nn.InstanceNorm2d(64),
            nn.ConvTranspose2d(64, 64, 3, stride=2, padding=1, output_padding=1),
            nn.Conv2d(64, 3, 3, padding=1),
            nn.Tanh(),
        ).eval()

    def example(self) -> Tensor:
        """Inputs ``[3, ...]`` as the generator takes them."""
        return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1

    def target(self) -> Target:
        """What is tested.

        Raises:
            SkipTest: its packages are not installed.
        """
        target = find_target(self.runtime)
        if missing := [name for name in target.packages if importlib.util.find_spec(name) is None]:
            raise SkipTest(f"{', '.join(missing)} not installed")
        return target

    def exported(self, profile: Device) -> tuple[Path, dict[str, Any]]:
        """The folder of an export, and what was found; made once."""
        folder = Path(self._folder.name) / profile.name
        if not (folder / "manifest.json").exists():
            inputs = self.example()
            found = export_model(folder, self.generator(), inputs[:1], profile, pictures=inputs)
            (folder / "manifest.json").write_text(json.dumps(found))
        return folder, json.loads((folder / "manifest.json").read_text())

    def outputs(self, profile: Device) -> tuple[np.ndarray, np.ndarray]:
        """Of the file, loaded again, and of PyTorch.

        Raises:
            SkipTest: the file does not run on this machine.
        """
        if not self.target().here:
            raise SkipTest(f"{self.runtime} does not run here")
        folder, found = self.exported(profile)
        runner, inputs = load_runner(folder / found["file"], profile), self.example()
        with torch.no_grad():
            made = Exported(runner, batch=None if profile.batch == "dynamic" else 1)(inputs)
            return made.numpy(), self.generator()(inputs).numpy()

    def test_equals_pytorch(self) -> None:
        """In float32, to 1e-4; outputs are float32 and do not share memory from call to call."""
        if "float32" not in self.target().precisions:
            raise SkipTest(f"{self.runtime} has no float32")
        made, expected = self.outputs(_profile(self.runtime))
        assert made.dtype == np.float32
        assert np.abs(made - expected).max() <= LARGEST

    def test_dynamic_batch(self) -> None:
        """Where declared a batch of three is one call; else it is refused before anything is written."""
        profile = _profile(self.runtime, precision=self.target().precisions[0], batch="dynamic")
        if self.target().dynamic:
            made, expected = self.outputs(profile)
            assert psnr(made, expected) >= LEAST_PSNR.get(profile.precision, 80)
            return
        _refused(profile, "batch: static")

    def test_dynamic_size(self) -> None:
        """Where declared one file takes other heights and widths, and says so; else it is refused before writing."""
        target = self.target()
        profile = _profile(self.runtime, precision=target.precisions[0], size="dynamic")
        if target.sizes == "fixed":
            _refused(profile, "size: fixed")
            return
        folder, found = self.exported(profile)
        assert found["shapes"] == [[1, self.example().shape[1], "height", "width"]]
        if not target.here:
            return
        assert len({tuple(sides) for sides in found["proved"]}) == PROVED
        multiple, native = found["size_multiple"], sides_of(self.example())
        wanted = native[0] + 2 * multiple, native[1] + 3 * multiple
        exported, inputs = Exported(load_runner(folder / found["file"], profile)), at_sides(self.example(), wanted)
        assert isinstance(inputs, Tensor)
        with torch.no_grad():
            made, expected = exported(inputs).numpy(), self.generator()(inputs).numpy()
        assert psnr(made, expected) >= LEAST_PSNR.get(profile.precision, 80)
        timed = [sys.executable, "bench.py", "--runs", "1", "--warm-up", "1", "--size", "x".join(map(str, wanted))]
        done = subprocess.run(timed, capture_output=True, text=True, cwd=folder, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().endswith(f"x{wanted[0]}x{wanted[1]}")

    def test_each_precision_is_written(self) -> None:
        """What the file holds, by its types where they can be read, and by its size; what it computes, in dB."""
        sizes, target = {}, self.target()
        for precision in target.precisions:
            _, found = self.exported(_profile(self.runtime, precision=precision))
            sizes[precision], held = found["bytes"], found.get("weights", {})
            assert found["precision"] == precision
            if held:
                assert held[precision] >= 0.9 * sum(held.values()), f"{precision} file holds {held}"
            if target.here and precision in LEAST_PSNR:
                made, expected = self.outputs(_profile(self.runtime, precision=precision))
                assert psnr(made, expected) >= LEAST_PSNR[precision]
        weights = sum(parameter.numel() for parameter in self.generator().parameters())
        for precision, size in sizes.items():
            saved = (4 - {"float32": 4, "float16": 2, "int8": 1}[precision]) * weights
            if "float32" in sizes:
                assert size <= sizes["float32"] - 0.8 * saved, f"a {precision} file has {size} bytes"

    def test_other_precisions_are_refused(self) -> None:
        """Before anything is written, with what is allowed."""
        for precision in PRECISIONS:
            if precision not in self.target().precisions:
                _refused(_profile(self.runtime, precision=precision), "allowed: " + ", ".join(self.target().precisions))

    def test_missing_packages_are_one_message(self) -> None:
        """Each says what to install."""
        target = self.target()
        for missing in target.packages:
            with patch.object(
                importlib.util, "find_spec", functools.partial(_without, missing, importlib.util.find_spec)
            ):
                _refused(
                    _profile(self.runtime, precision=target.precisions[0]), f"needs {missing}; run: {target.install}"
                )

    def test_bench_runs_without_gantailor(self) -> None:
        """On the device there are Python, numpy and the runtime; one line of CSV comes out."""
        profile = _profile(self.runtime, precision=self.target().precisions[0])
        folder, found = self.exported(profile)
        compile((folder / "runtime.py").read_text(), "runtime.py", "exec")
        if not self.target().here:
            return
        program = _BARE.format(path=str(folder / "bench.py"))
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=folder, check=False)
        assert done.returncode == 0, done.stderr
        header, row = done.stdout.strip().splitlines()
        values = dict(zip(header.split(","), row.split(","), strict=True))
        assert (values["runtime"], values["precision"]) == (self.runtime, profile.precision)
        assert float(values["median_ms"]) > 0
        assert math.isclose(float(values["max_difference"]), found["max_difference"], rel_tol=0.5, abs_tol=LARGEST)

    def test_model_is_left_as_it_was(self) -> None:
        """Weights, types and modes."""
        model, inputs = self.generator(), self.example()
        before, types = copy.deepcopy(model.state_dict()), [type(module) for module in model.modules()]
        for precision in self.target().precisions[-1:]:
            with tempfile.TemporaryDirectory() as folder:
                export_model(
                    Path(folder), model, inputs[:1], _profile(self.runtime, precision=precision), pictures=inputs
                )
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert all(value.dtype == before[name].dtype for name, value in model.state_dict().items())
        assert [type(module) for module in model.modules()] == types
