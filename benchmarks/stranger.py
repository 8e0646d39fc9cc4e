"""One public generator, traced, proved and held against checks that do not use the proof: prints a JSON row.

    python benchmarks/stranger.py FOLDER NAME    # an entry of strangers.yaml, the clones in FOLDER

Imports that are missing are replaced by objects that do nothing, CUDA operators by what the repository falls back on;
parameters that are constant when they are made (zero gates) become random, so that the checks see them. Seconds are of
the CPU on one thread: by the clock a shared core would count what others did in between.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.abc
import importlib.machinery
import io
import json
import os
import re
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode

from gantailor.export.rewriting.functions import as_onnx_has_it
from gantailor.export.rewriting.still import still
from gantailor.supernet.graph import SubnetConfig
from gantailor.supernet.subnets.copying import copied
from gantailor.supernet.supernet import Supernet
from gantailor.supernet.verify import verify

LIST = Path(__file__).with_suffix("").with_name("strangers.yaml")
NECESSARY = ("is the generator's output", "is handed out", "meets a tensor of fixed size", "is the vocabulary")
_OPERATOR = r"No ONNX function found for .*op='(aten\.\w+)'"
NOT_EXPORTED = {  # what PyTorch's exporter says
    rf"{_OPERATOR}.* complex-valued": "it computes with complex numbers ({}), which ONNX does not have",
    _OPERATOR: "ONNX has no operator for {}",
    r"data-dependent expression": "a branch or a size in its forward depends on the values of a tensor",
    r"multiple values for argument 'mod'": "PyTorch's exporter has an argument named as one of its layers', mod",
}
Config = Mapping[str, int]


class _Missing(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules that are not installed: whatever is asked of them is a class that does nothing."""

    def __init__(self, roots: list[Path]) -> None:
        self.roots = roots

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        frame: Any = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
            frame = frame.f_back
        if not any(frame.f_code.co_filename.startswith(str(root)) for root in self.roots):
            return None  # an installed package that tries what it can use
        top = name.partition(".")[0]
        own = any((root / f"{top}{end}").exists() for root in self.roots for end in ("", ".py"))
        return None if own or top in sys.stdlib_module_names else importlib.machinery.ModuleSpec(name, self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = types.ModuleType(spec.name)
        module.__path__ = []
        module.__getattr__ = _nothing  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing is run."""


class _Kind(type):
    """Attributes of a missing class are missing classes."""

    def __getattr__(cls, name: str) -> Any:
        return _nothing(name)


class _Nothing(nn.Module, metaclass=_Kind):
    """Stands for classes, functions and decorators of missing modules."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__()

    def forward(self, *args: Any, **options: Any) -> Any:
        return args[0] if args else None

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return _nothing(name)


def _nothing(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (_Nothing,), {})


def _bare(name: str, roots: list[Path]) -> types.ModuleType:
    """A package whose ``__init__`` is not run; its files can be imported, other names are missing classes."""
    module = types.ModuleType(name)
    module.__path__ = folders = [str(root / name.replace(".", "/")) for root in roots]

    def attribute(wanted: str) -> Any:
        if any(Path(folder, f"{wanted}{end}").exists() for folder in folders for end in ("", ".py")):
            raise AttributeError(wanted)
        return _nothing(wanted)

    module.__getattr__ = attribute  # type: ignore[method-assign]
    return module


def fused_leaky_relu(x: Tensor, bias: Tensor | None = None, slope: float = 0.2, scale: float = 2**0.5) -> Tensor:
    """What StyleGAN2's CUDA operator of this name computes."""
    shifted = x if bias is None else x + bias.view(1, -1, *[1] * (x.dim() - 2))
    return nn.functional.leaky_relu(shifted, slope) * scale


class FusedLeakyReLU(nn.Module):
    """The same as a module."""

    def __init__(self, channel: int, negative_slope: float = 0.2, scale: float = 2**0.5) -> None:
        super().__init__()
        self.bias, self.slope, self.scale = nn.Parameter(torch.zeros(channel)), negative_slope, scale

    def forward(self, x: Tensor) -> Tensor:
        return fused_leaky_relu(x, self.bias, self.slope, self.scale)


def upfirdn2d(x: Tensor, kernel: Tensor, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)) -> Tensor:
    """What StyleGAN2's CUDA operator of this name computes: zeros between pixels, a filter, every so many pixels."""
    b, c, h, w = x.shape
    wide = nn.functional.pad(x.view(b, c, h, 1, w, 1), (0, up - 1, 0, 0, 0, up - 1)).view(b, c, h * up, w * up)
    wide = nn.functional.pad(wide, (pad[0], pad[1], pad[0], pad[1]))
    filters = kernel.flip(0, 1)[None, None].expand(c, 1, -1, -1).to(x.dtype)
    return nn.functional.conv2d(wide, filters, groups=c)[:, :, ::down, ::down]


class Method(nn.Module):
    """A module's method as a forward: ``Method(vae, "decode")``."""

    def __init__(self, module: nn.Module, name: str, **options: Any) -> None:
        super().__init__()
        self.module, self.name, self.options = module, name, options

    def forward(self, *inputs: Any) -> Any:
        return getattr(self.module, self.name)(*inputs, **self.options)


def built(folder: Path, entry: Mapping[str, Any]) -> tuple[nn.Module, tuple[Any, ...]]:
    """An entry's generator in eval mode, and its inputs."""
    roots = [folder / entry["repository"] / entry.get("root", ""), *(folder / name for name in entry.get("beside", []))]
    if "package" not in entry:
        sys.path[:0] = map(str, roots)
    sys.meta_path.append(_Missing(roots))
    for name in entry.get("bare", []):
        sys.modules[name] = _bare(name, roots)
    for name in entry.get("native", []):
        sys.modules[name] = native = types.ModuleType(name)
        vars(native).update({f.__name__: f for f in (FusedLeakyReLU, fused_leaky_relu, upfirdn2d)})
        vars(native)["conv2d_gradfix"] = nn.functional
    for name in ("nms", "qnms"):  # torchvision asks for them when it is imported, even if its compiled part is missing
        torch.library.define(f"torchvision::{name}", "(Tensor a, Tensor b, float c) -> Tensor")
    tools = {"torch": torch, "nn": nn, "np": np, "randn": torch.randn, "rand": torch.rand, "Method": Method}
    tools |= {"Namespace": argparse.Namespace, "module": importlib.import_module}
    Tensor.cuda = nn.Module.cuda = lambda self, *a, **k: self  # type: ignore[method-assign,assignment]
    said, available = io.StringIO(), entry.get("gpu", False)
    with (
        contextlib.redirect_stdout(said),
        mock.patch("torch.cuda.is_available", return_value=available),
        mock.patch("torch.utils.cpp_extension.load", return_value=_Nothing()),
    ):
        module = importlib.import_module(entry["module"])
        for line in entry.get("before", []):
            exec(line, vars(module) | tools, vars(module))
        torch.manual_seed(0)
        generator = eval(entry["build"], vars(module) | tools)
    generator = generator.eval().requires_grad_(True)
    for parameter in generator.parameters():
        if parameter.numel() > 1 and parameter.is_floating_point() and (parameter == parameter.flatten()[0]).all():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return generator, tuple(eval(text, vars(module) | tools) for text in entry["inputs"])


@torch.no_grad()
def outputs(model: Callable[..., Any], inputs: tuple[Any, ...], **options: Any) -> Tensor:
    """All outputs as one vector, with the same noise at every call."""
    torch.manual_seed(1)
    made = model(*inputs, **options)
    leaves = [x for x in tree_leaves(made) if isinstance(x, Tensor)]
    return torch.cat([torch.view_as_real(x).flatten() if x.is_complex() else x.flatten().double() for x in leaves])


def apart(one: Tensor, other: Tensor) -> float:
    """Largest difference as a share of the largest value; infinite between different shapes."""
    if one.shape != other.shape or not one.isfinite().all():
        return float("inf")
    return float((one - other).abs().max() / (other.abs().max() + 1e-30))


def counted(model: nn.Module, inputs: tuple[Any, ...]) -> float:
    """Multiply-accumulates for one of the batch by torch's own counter."""
    first = next((x for x in tree_leaves(inputs) if isinstance(x, Tensor)), None)
    model.requires_grad_(False)  # the counter's hooks would ask for gradients
    # the fused attention of CPUs is not in its table
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(*inputs)
    return counter.get_total_flops() / 2 / (1 if first is None else len(first))


@contextlib.contextmanager
def in_double(on: bool) -> Iterator[None]:
    """Within it new tensors are float64."""
    torch.set_default_dtype(torch.float64 if on else torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


class _Tensors(nn.Module):
    """A model without what it returns beside tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any) -> list[Tensor]:
        return [one for one in tree_leaves(self.model(*inputs)) if isinstance(one, Tensor)]


class Checks:
    """What the proof says, tried without the proof."""

    def __init__(self, supernet: Supernet, inputs: tuple[Any, ...], double: bool) -> None:
        self.double, self.graph, self.full = double, supernet.graph, supernet.full_config()

        def like(value: Any) -> Any:
            return value.double() if double and isinstance(value, Tensor) and value.is_floating_point() else value

        self.inputs, self.supernet = tree_map(like, inputs), copied(supernet)
        if double:
            self.supernet = self.supernet.double()

    def subnets(self, count: int = 4) -> float:
        """Random and equal sizes: sliced is extracted."""
        rng, sizes = np.random.default_rng(7), [width.size for width in self.graph.widths]
        tried = [[int(rng.integers(1, size + 1)) for size in sizes] for _ in range(count)]
        tried += [[min(size, level) for size in sizes] for level in sorted({max(1, min(sizes) // 2), min(sizes)})]
        tried.append([max(1, size // 2) for size in sizes])
        worst = 0.0
        for chosen in tried:
            config = self.config(chosen)
            worst = max(worst, apart(self.run(self.supernet.extract(config)), self.sliced(config)))
        return worst

    def run(self, model: nn.Module, **options: Any) -> Tensor:
        """Its output."""
        with in_double(self.double):
            return outputs(model, self.inputs, **options)

    def sliced(self, config: Config) -> Tensor:
        """The supernet's own output at these widths."""
        return self.run(self.supernet, config=config)

    def config(self, sizes: list[int]) -> SubnetConfig:
        """By the widths' names."""
        return SubnetConfig({width.name: size for width, size in zip(self.graph.widths, sizes, strict=True)})

    def zeroed(self) -> float | None:
        """Half of every exact width extracted is the whole net with what reads the other half zeroed; None without."""
        read = {n for n, places in self.graph.consumers.items() if places}
        exact = read - {*self.graph.inexact}
        if not exact:
            return None
        config = SubnetConfig({self.graph.widths[n].name: max(1, self.graph.widths[n].size // 2) for n in exact})
        whole = copied(self.supernet)
        for n in exact:
            for name, dimension in self.graph.consumers[n]:
                axis = self.graph.axes[name][dimension]
                gone = np.flatnonzero((axis.width == n) & (axis.unit >= config[self.graph.widths[n].name]))
                whole.tensors[name].data.index_fill_(dimension, torch.from_numpy(gone), 0)
        return apart(self.run(self.supernet.extract({**self.full, **config})), self.run(whole))


def checked(supernet: Supernet, expected: Tensor, inputs: tuple[Any, ...]) -> dict[str, Any]:
    """Differences, in float64 or in the generator's own precision, and whether they are too large.

    ``expected`` is what the caller's generator gave before it was wrapped.
    """
    whole = apart(outputs(supernet, inputs), expected)
    try:
        checks = Checks(supernet, inputs, True)
        checks.sliced(checks.full)
    except Exception:  # it insists on float32
        checks = Checks(supernet, inputs, False)
    row: dict[str, Any] = {"float": 64 if checks.double else 32, "full_vs_own": whole}
    row["sliced_vs_extracted"] = checks.subnets() if checks.graph.widths else 0.0
    row["half_vs_zeroed"] = checks.zeroed()
    allowed = 1e-8 if checks.double else 2e-3
    row["wrong"] = whole > 2e-3 or max(row["sliced_vs_extracted"], row["half_vs_zeroed"] or 0.0) > allowed
    return row


def costs(supernet: Supernet, inputs: tuple[Any, ...]) -> dict[str, Any]:
    """Shares of the MACs: at half widths, by ``macs`` and by torch's counter; frozen with and without need."""
    graph, full = supernet.graph, supernet.full_config()
    half = {width.name: max(1, width.size // 2) for width in graph.widths}
    said = [supernet.macs(full), supernet.macs(half)]
    real = [counted(supernet.extract(config), inputs) for config in (full, half)]
    frozen: dict[str, float] = {}
    for name, reason in graph.frozen.items():
        frozen[reason] = max(frozen.get(reason, 0.0), graph.shares.get(name, 0.0))
    needed = {r for r in frozen if r.startswith(NECESSARY) and "lost its channels" not in r}
    return {
        "macs": said[0],
        "half_share": said[1] / max(1, said[0]),
        "half_share_counted": real[1] / max(1, real[0]),
        "counts_agree": all(abs(a - b) <= 1 + 1e-6 * b for a, b in zip(said, real, strict=True)),
        "frozen_needed": sum(share for reason, share in frozen.items() if reason in needed),
        "frozen_unsupported": sum(share for reason, share in frozen.items() if reason not in needed),
        "frozen": "; ".join(
            f"{reason} ({share:.0%})" for reason, share in sorted(frozen.items(), key=lambda i: -i[1])[:6]
        ),
        "inexact": len(graph.inexact),
    }


def _without_stand_ins() -> None:
    """The exporter's own imports are not the repository's files (a folder ``onnx``), nor what stands in for missing."""
    finders = [finder for finder in sys.meta_path if isinstance(finder, _Missing)]
    roots = [str(root) for finder in finders for root in finder.roots]
    sys.meta_path[:] = [finder for finder in sys.meta_path if finder not in finders]
    sys.path[:] = [path for path in sys.path if path not in roots]
    for name, module in [*sys.modules.items()]:
        if getattr(getattr(module, "__spec__", None), "loader", None) in finders:
            del sys.modules[name]


def exported(supernet: Supernet, inputs: tuple[Any, ...]) -> str:
    """Whether the half-width net runs in onnxruntime as in PyTorch, or why not."""
    config = {width.name: max(1, width.size // 2) for width in supernet.graph.widths}
    model = supernet.extract(config).eval()

    def run(net: nn.Module, factor: float) -> None:
        outputs(net, tree_map(lambda x: x * factor if isinstance(x, Tensor) and x.is_floating_point() else x, inputs))

    model = _Tensors(still(model, run))
    _without_stand_ins()
    given = (*inputs, {}) if isinstance(inputs[-1], dict) else inputs  # PyTorch takes a last dictionary for options
    with tempfile.TemporaryDirectory() as scratch, as_onnx_has_it():
        file = Path(scratch) / "model.onnx"
        torch.onnx.export(model, given, str(file), dynamo=True, external_data=False, verbose=False)
        import onnxruntime

        session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    feeds = [x for x in tree_leaves(inputs) if isinstance(x, Tensor)]
    named = {end.name: x.numpy() for end, x in zip(session.get_inputs(), feeds, strict=False)}
    made = torch.from_numpy(session.run(None, named)[0])
    own = next(x for x in tree_leaves(model(*inputs)) if isinstance(x, Tensor)).detach()
    found = apart(made.flatten().double(), own.flatten().double())
    return "yes" if found < 1e-2 else f"written, but off by {found:.1e}"


def measured(folder: Path, entry: Mapping[str, Any], tell: Callable[[dict[str, Any]], None]) -> None:
    """Tell the parts of the row as they are known."""
    start = time.process_time()
    generator, inputs = built(folder, entry)
    expected = outputs(generator, inputs)
    tell({"built_seconds": time.process_time() - start, "noisy": apart(outputs(generator, inputs), expected) > 1e-6})
    start = time.process_time()
    supernet = Supernet(generator, inputs)
    tell({"traces": True, "trace_seconds": time.process_time() - start})
    start = time.process_time()
    try:
        proof = verify(supernet, repair=True)
    finally:
        tell({"proof_seconds": time.process_time() - start})
    tell({"proves": True, "bits": proof.bits, "widths": len(supernet.graph.widths)})
    tell(costs(supernet, inputs))
    tell(checked(supernet, expected, inputs))
    if os.environ.get("STRANGERS_EXPORT") == "0":
        return
    try:
        tell({"onnx": exported(supernet, inputs)})
    except Exception as error:  # whatever an exporter says
        tell({"onnx": f"no: {why(_line(error))}"})


def why(line: str) -> str:
    """An exporter's message as a sentence, where it is one of those that are known."""
    found = ((re.search(pattern, line), text) for pattern, text in NOT_EXPORTED.items())
    return next((text.format(*match.groups()) for match, text in found if match), line)


def _line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def main() -> None:
    """A line of JSON for each part of the row."""
    folder, name = Path(sys.argv[1]), sys.argv[2]
    entry = next(entry for entry in yaml.safe_load(LIST.read_text()) if entry["name"] == name)
    torch.set_num_threads(1)

    def tell(part: dict[str, Any]) -> None:
        print("ROW " + json.dumps(part), flush=True)

    try:
        measured(folder, entry, tell)
    except Exception as error:  # a stranger's code
        tell({"error": _line(error)})
        raise


if __name__ == "__main__":
    main()
