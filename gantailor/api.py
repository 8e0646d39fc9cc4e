"""The whole job, runs and exports, from Python."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import gantailor
from gantailor.export.checking import as_inputs, first_made
from gantailor.export.devices import Device, device
from gantailor.export.errors import ExportError
from gantailor.export.export import export_model
from gantailor.export.target import check_device
from gantailor.export.weights import FILE, read_weights
from gantailor.handover.card import write_card
from gantailor.handover.interface import interface
from gantailor.pipeline.compress import STAGES
from gantailor.pipeline.compress import compress as run_stages
from gantailor.records.modules import find_modules
from gantailor.run.config import Config
from gantailor.run.defaults import merged
from gantailor.run.folder import RunFolder, damaged
from gantailor.run.loading import load_config
from gantailor.run.run import Run, rebuilt
from gantailor.run.run import open_run as open_folder
from gantailor.supernet.calling import Inputs
from gantailor.supernet.device import HOST
from gantailor.supernet.errors import CheckpointError, ConfigError, RunError, nearest, shortened, why_of
from gantailor.supernet.files import write_json
from gantailor.supernet.graph import SubnetConfig
from gantailor.supernet.subnets.copying import copied
from gantailor.supernet.training import distributed
from gantailor.zoo.checkpoints import load_state
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.fit import Reading
from gantailor.zoo.data.kinds.dataset import DatasetItems, checked, give, is_given
from gantailor.zoo.data.kinds.values import CHANNELS
from gantailor.zoo.generators.given import give as give_model
from gantailor.zoo.generators.given import is_given as is_given_model

__all__ = ["compress", "export", "load", "open_run"]


def compress(
    what: nn.Module | Config | Mapping[str, Any] | str | Path,
    *,
    data: Any = None,
    budget: str | None = None,
    settings: Mapping[str, Any] | None = None,
    out: str | Path = "runs/run",
    until: str = "report",
) -> Run:
    """The whole job, as ``gantailor compress``: what is done in the folder already is not done again.

    Under ``torchrun`` its processes share the job, as those of the command do.

    Args:
        what: a trained generator, any module, which is its own teacher and stays as it is; or settings as in a YAML
            file, nested or with dotted names; or the file itself.
        data: a torch Dataset in place of ``data.kind``, or Datasets by split, ``{"train": ..., "test": ...}``; what
            items are is told in ``gantailor/zoo/data/kinds/dataset.py``. Beside a module ``data.size`` is that of the
            first tensor, unless it is set. The run folder remembers the digests of data
            and generator alone: ``open_run(folder, data=..., model=...)`` needs them again. Processes that this one
            starts do not have them, so ``search.workers`` stays 1; under torchrun every process passes them.
        budget: what the result may cost, ``0.1x``; over the settings.
        settings: more settings, nested or with dotted names: ``{"data.size": 128, "finetune": {"kimg": 20}}``.
        out: run folder.
        until: the last stage: check, train, search, finetune, evaluate, export or report.

    Raises:
        GantailorError: a mistake in the settings, or a stage that cannot go on.
    """
    if until not in STAGES:
        raise ConfigError(f"until={until!r} is no stage; {nearest(until, STAGES)}")
    if not isinstance(settings, Mapping | None):
        raise ConfigError(
            f"settings cannot be {shortened(repr(settings))}; give them by name, {{'data.size': 128}} say"
        )
    config, more = what, {**(settings or {}), **({} if budget is None else {"budget": budget})}
    if not isinstance(what, Config | Mapping | str | Path):
        generator, weights = give_model(what)
        config = {"generator": generator, "options": {}, "teacher": {"weights": weights}, **_sizes(data)}
    if not isinstance(config, Config) or more:
        config = _config(config, more)
    if data is not None:
        config = config.model_copy(update={"data": give(data, config.data)})
    _check_given(config)
    distributed.join()
    run = Run(out, config)
    run_stages(run, until=until)
    return run


def _config(source: Any, more: Mapping[str, Any]) -> Config:
    """Settings from a mapping or a file, with more of them on top."""
    if isinstance(source, Config):
        source = source.model_dump(mode="json")
    parts = [more] if isinstance(source, str | Path) else [source, more]
    nested = [{name: value for name, value in part.items() if "." not in name} for part in parts]
    dotted = {name: value for part in parts for name, value in part.items() if "." in name}
    if isinstance(source, str | Path):
        flat = {f"{section}.{name}": value for section, name, value in _leaves(nested[0])}
        plain = {
            name: value for name, value in nested[0].items() if not isinstance(value, Mapping) or name == "options"
        }
        return load_config(str(source), {**plain, **flat, **dotted})
    return load_config(merged(*nested), dotted)


def _leaves(nested: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """What sections say, as (section, name, value)."""
    for section, values in nested.items():
        if isinstance(values, Mapping) and section != "options":
            yield from ((section, name, value) for name, value in values.items())


def _sizes(data: Any) -> dict[str, Any]:
    """The size of a Dataset's pictures as a setting, where they are tensors or arrays, which have one."""
    dataset = next(iter(data.values()), None) if isinstance(data, Mapping) else data
    if dataset is None:
        return {}
    value = DatasetItems(checked(dataset, "data="), Reading.of(DataConfig()), "data=").parts(0).inputs[0]
    shape = tuple(getattr(value, "shape", ()))
    if isinstance(value, Tensor):
        return {"data.size": list(shape[1:])} if len(shape) == 3 else {}
    read = len(shape) == 3 and shape[2] in CHANNELS and value.dtype.kind == "u"  # other arrays are refused as they are
    return {"data.size": list(shape[:2])} if read else {}


def _check_given(config: Config) -> None:
    """That no other processes are asked for what only this one has.

    Raises:
        ConfigError: they are.
    """
    parts = {"data": is_given(config.data.kind), "a generator": is_given_model(config.generator)}
    what = " and ".join(name for name, here in parts.items() if here)
    asked = {"search.workers": config.search.workers > 1, "search.ray_address": config.search.ray_address is not None}
    for setting in (name for name, others in asked.items() if what and others):
        raise ConfigError(
            f"{setting} needs other processes, which do not have {what} from Python; leave it out, or name what they "
            "can import: data.kind module:name, generator module:name"
        )


def open_run(
    folder: str | Path,
    *,
    data: Any = None,
    model: nn.Module | None = None,
    trust_code: bool = False,
    where: Mapping[str, str | Path] | None = None,
) -> Run:
    """A run folder that exists, with the configuration that it was made with; nothing is written.

    Args:
        data: what the run was made with, where that was given from Python; without it the run's weights and files
            can be looked at, and nothing be trained or scored.
        model: the generator that the run was made with, where that was given from Python.
        trust_code: import the code that the run's settings name, and open the study that they name, though somebody
            else made the run.
        where: settings that name files and folders, and where these lie now: ``{"data.path": "/mnt/pairs", "teacher":
            "latest_net_G.pth"}``. What is there must be what the run began with.

    Raises:
        ConfigError: it holds no run, or one of another version; or a setting in ``where`` names no file.
        RunError: data or model are other than the run's; or somebody else made it, and it names code.
    """
    run = open_folder(folder, trust_code=trust_code, where=where)
    if model is not None:
        names, known = give_model(model), (run.config.generator, run.config.teacher.weights)
        if names != known:
            raise RunError(f"{str(folder)!r} was made with the generator {known}, model= is {names}; pass the same")
    if data is not None:
        plain = run.config.data.model_copy(update={"kind": DataConfig().kind})
        kind, found = run.config.data.kind, give(data, plain).kind
        if found != kind:
            raise RunError(f"{str(folder)!r} was made with the data {kind}, data= is {found}; pass the same")
    return run


def load(place: str | Path, *, model: nn.Module | None = None, trust_code: bool = False) -> nn.Module:
    """A narrow generator without its teacher and data: a plain module in eval mode, on the CPU.

    An exported ``model.safetensors`` says how to build it: generator, options, widths, the size of its input, and what
    tracing decided. Of a run folder it is the exported generator, or where none was exported yet the fine-tuned subnet
    (one that was not fine-tuned, and has batch norms, needs the training pictures for their statistics). A generator of
    one's own (``module:name``) must be importable. Nothing in the file is code.

    Args:
        place: the file, a run folder, or its ``export``.
        model: the whole generator, with any weights, where that was given from Python.
        trust_code: import the generator that file or run name, though somebody else wrote it. A generator of the zoo,
            and what you made yourself, need no trust.

    Raises:
        CheckpointError: the file is missing or damaged, or does not say how to build it; or somebody else wrote it, and
            it names code.
        ConfigError: its generator cannot be imported, or the folder holds no run.
        RunError: the run has no subnet yet, or somebody else made it, and it names code.
    """
    file = Path(place)
    if model is not None:
        give_model(model)
    for near in (file, *list(file.absolute().parents)[:2]):  # the run folder is one of them
        find_modules(RunFolder(near))
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
    devices: str | Device | Sequence[str | Device] = ("onnxruntime-cpu",),
    pictures: Inputs | None = None,
    licence: str | None = None,
) -> dict[str, Any]:
    """Any generator for devices, each file compared with PyTorch: as ``gantailor export``, without a run.

    A folder for each device in ``out``, with the model, ``manifest.json`` (what an app needs, and what was checked) and
    ``bench.py``, and a model card, ``README.md``; ``gantailor run out PICTURES`` applies them. See
    ``gantailor/export/export.py``.

    Args:
        model: written, and compared with, in eval mode on the CPU; it stays as it is, and where it is.
        out: folder, made if missing.
        example_inputs: a tensor ``[N, ...]``, or a tuple of such in the order of the forward: the first row is traced,
            all are compared. Pictures lie in [-1, 1].
        devices: a name or names of profiles, ``FILE.yaml:NAME`` for one's own, or ``Device`` records.
        pictures: to calibrate 8 bits with, in the same form; the example if missing.
        licence: of the model, for the manifest.

    Returns:
        The manifest of all, ``devices`` by name in it; as ``out/manifest.json`` holds it.

    Raises:
        ExportError: a target has not this precision, an extra is missing, an operator is not supported, or a written
            model computes something else than PyTorch; or the model is not in float32, gives several tensors or NaN,
            or something else each time; or ``out`` is no folder that can be written.
        ConfigError: there is no such device, or none; or the licence is no text.
    """
    wanted = [devices] if isinstance(devices, str | Device) else devices
    if not isinstance(wanted, Sequence) or not wanted:
        raise ConfigError(f"devices cannot be {wanted!r}; give a name or names of profiles, onnxruntime-cpu say")
    if not isinstance(licence, str | None):
        raise ConfigError(f"licence cannot be {licence!r}; give its name, 'MIT' say, or leave it out")
    profiles = [one if isinstance(one, Device) else device(one) for one in wanted]
    for profile in profiles:
        check_device(profile)
    example = as_inputs(example_inputs)
    given = example if pictures is None else as_inputs(pictures)
    about, folder = {"licence": licence, "provenance": {"gantailor": gantailor.__version__}}, Path(out)
    model = copied(model).eval().to(HOST)
    manifest = {**interface(model, example, first_made(model, example)), **about}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"out={str(out)!r} cannot be written ({why_of(error)}); give a folder") from None
    found = {p.name: export_model(folder / p.name, model, example, p, pictures=given, about=about) for p in profiles}
    manifest["devices"] = {
        name: {key: value for key, value in one.items() if key not in about} for name, one in found.items()
    }
    write_json(folder / "manifest.json", manifest)
    write_card(folder, manifest, {})
    return manifest
