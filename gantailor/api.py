"""The whole job, runs and exports, from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import gantailor
from gantailor.export.checking import as_inputs
from gantailor.export.devices import Device, device
from gantailor.export.export import export_model
from gantailor.export.target import check_device
from gantailor.export.weights import FILE, read_weights
from gantailor.handover.interface import interface
from gantailor.pipeline.compress import compress as run_stages
from gantailor.run.config import Config
from gantailor.run.folder import RunFolder, damaged
from gantailor.run.loading import load_config
from gantailor.run.run import Run, rebuilt
from gantailor.run.run import open_run as open_folder
from gantailor.supernet.calling import Inputs, rows_of
from gantailor.supernet.device import computed
from gantailor.supernet.errors import CheckpointError, ConfigError, RunError
from gantailor.supernet.files import write_json
from gantailor.supernet.graph import SubnetConfig
from gantailor.supernet.subnets.copying import copied
from gantailor.supernet.training import distributed
from gantailor.zoo.checkpoints import load_state
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.kinds.dataset import give, is_given

__all__ = ["compress", "export", "load", "open_run"]


def compress(
    config: Config | Mapping[str, Any] | str | Path,
    *,
    data: Any = None,
    out: str | Path = "runs/run",
    until: str = "report",
) -> Run:
    """The whole job, as ``gantailor compress``: what is done in the folder already is not done again.

    Under ``torchrun`` its processes share the job, as those of the command do.

    Args:
        config: settings as in a YAML file, nested or with dotted names; or the file itself.
        data: a torch Dataset in place of ``data.kind``, or Datasets by split, ``{"train": ..., "test": ...}``; what
            items are is told in ``gantailor/zoo/data/kinds/dataset.py``. The run folder remembers its digest alone:
            ``open_run(folder, data=...)`` needs it again. Processes that this one starts do not have it, so
            ``search.workers`` stays 1; under torchrun every process passes it.
        out: run folder.
        until: the last stage: check, train, search, finetune, evaluate, export or report.

    Raises:
        GantailorError: a mistake in the settings, or a stage that cannot go on.
    """
    if not isinstance(config, Config):
        nested = str(config) if isinstance(config, str | Path) else {k: v for k, v in config.items() if "." not in k}
        dotted = {} if isinstance(config, str | Path) else {k: v for k, v in config.items() if "." in k}
        config = load_config(nested, dotted)
    if data is not None:
        config = config.model_copy(update={"data": give(data, config.data)})
    if is_given(config.data.kind) and config.search.workers > 1:
        raise ConfigError(
            f"search.workers cannot be {config.search.workers} with data from Python, which other processes do not "
            "have; set it to 1, or name the Dataset: data.kind module:name"
        )
    distributed.join()
    run = Run(out, config)
    run_stages(run, until=until)
    return run


def open_run(folder: str | Path, *, data: Any = None, trust_code: bool = False) -> Run:
    """A run folder that exists, with the configuration that it was made with.

    Args:
        data: what the run was made with, where that was given from Python; without it the run's weights and files
            can be looked at, and nothing be trained or scored.
        trust_code: import the code that the run's settings name, and open the study that they name, though somebody
            else made the run.

    Raises:
        ConfigError: it holds no run, or one of another version.
        RunError: the data is other than the run's; or somebody else made it, and it names code.
    """
    run = open_folder(folder, trust_code=trust_code)
    if data is not None:
        plain = run.config.data.model_copy(update={"kind": DataConfig().kind})
        kind, found = run.config.data.kind, give(data, plain).kind
        if found != kind:
            raise RunError(f"{str(folder)!r} was made with the data {kind}, data= is {found}; pass the same")
    return run


def load(place: str | Path, *, trust_code: bool = False) -> nn.Module:
    """A narrow generator without its teacher and data: a plain module in eval mode, on the CPU.

    An exported ``model.safetensors`` says how to build it: generator, options, widths, the size of its input, and what
    tracing decided. Of a run folder it is the exported generator, or where none was exported yet the fine-tuned subnet
    (one that was not fine-tuned, and has batch norms, needs the training pictures for their statistics). A generator of
    one's own (``module:name``) must be importable. Nothing in the file is code.

    Args:
        place: the file, a run folder, or its ``export``.
        trust_code: import the generator that file or run name, though somebody else wrote it. A generator of the zoo,
            and what you made yourself, need no trust.

    Raises:
        CheckpointError: the file is missing or damaged, or does not say how to build it; or somebody else wrote it, and
            it names code.
        ConfigError: its generator cannot be imported, or the folder holds no run.
        RunError: the run has no subnet yet, or somebody else made it, and it names code.
    """
    file = Path(place)
    if file.is_dir():
        inside = (file / FILE, RunFolder(file).export / FILE)
        file = next((one for one in inside if one.is_file()), file)
    if file.is_dir():
        run = open_folder(file, trust_code=trust_code)
        run.replay()
        return run.subnet()[1]
    if file.suffix != ".safetensors":
        raise CheckpointError(
            f"{str(file)!r} is no exported generator; give a run folder, or an export/model.safetensors. A teacher's "
            "checkpoint is read by gantailor.load_teacher"
        )
    state, origin = read_weights(file, trust_code=trust_code)
    with damaged(file):
        narrow = rebuilt(origin).extract(SubnetConfig(origin["config"]))
    load_state(narrow, state, str(file))
    return narrow.eval()


def export(
    model: nn.Module,
    out: str | Path,
    *,
    example_inputs: Inputs | Sequence[Tensor],
    devices: Sequence[str | Device] = ("onnxruntime-cpu",),
    pictures: Inputs | None = None,
    licence: str | None = None,
) -> dict[str, Any]:
    """Any generator for devices, each file compared with PyTorch: as ``gantailor export``, without a run.

    A folder for each device in ``out``, with the model, ``manifest.json`` (what an app needs, and what was checked) and
    ``bench.py``; ``gantailor run out PICTURES`` applies them. See ``gantailor/export/export.py``.

    Args:
        model: written, and compared with, in eval mode; it stays as it is.
        out: folder, made if missing.
        example_inputs: a tensor ``[N, ...]``, or a tuple of such in the order of the forward: the first row is traced,
            all are compared. Pictures lie in [-1, 1].
        devices: names of profiles, ``FILE.yaml:NAME`` for one's own, or ``Device`` records.
        pictures: to calibrate 8 bits with, in the same form; the example if missing.
        licence: of the model, for the manifest.

    Returns:
        The manifest of all, ``devices`` by name in it; as ``out/manifest.json`` holds it.

    Raises:
        ExportError: a target has not this precision, an extra is missing, an operator is not supported, or a written
            model computes something else than PyTorch.
        ConfigError: there is no such device.
    """
    profiles = [one if isinstance(one, Device) else device(one) for one in devices]
    for profile in profiles:
        check_device(profile)
    example = as_inputs(example_inputs)
    given = example if pictures is None else as_inputs(pictures)
    about, folder = {"licence": licence, "provenance": {"gantailor": gantailor.__version__}}, Path(out)
    made = computed(copied(model).eval(), rows_of(example, slice(1)))
    manifest = {**interface(model, example, made), **about}
    found = {p.name: export_model(folder / p.name, model, example, p, pictures=given, about=about) for p in profiles}
    manifest["devices"] = {
        name: {key: value for key, value in one.items() if key not in about} for name, one in found.items()
    }
    write_json(folder / "manifest.json", manifest)
    return manifest
