"""Teachers from the checkpoints people have: our own files and the original formats of every generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gantailor.supernet.errors import CheckpointError
from gantailor.zoo.generators.record import find_generator
from gantailor.zoo.reading.candidate import completed, differences
from gantailor.zoo.reading.example import example_of
from gantailor.zoo.reading.files import SAVE, read_file, split_file
from gantailor.zoo.reading.matching import Matched, Use, match
from gantailor.zoo.reading.names import renamed, unwrapped
from gantailor.zoo.reading.paths import descended
from gantailor.zoo.reading.search import Search
from gantailor.zoo.reading.tensors import as_float32, check_tensors


@dataclass(frozen=True)
class Loaded:
    """A trained generator.

    Attributes:
        module: in eval mode.
        options: that it was built with: the user's, and those that the file told and that are not so anyway.
        matched: names that were matched by shape and order; None where the file has the generator's.
    """

    module: nn.Module
    options: Mapping[str, Any]
    matched: Matched | None = None


def _as_it_is(module: nn.Module) -> nn.Module:
    return module


def load_teacher(
    path: str | Path,
    *,
    generator: str,
    side: str | None = None,
    rename: Mapping[str, str] | None = None,
    example: Sequence[str | Path] | str | Path | None = None,
    **options: Any,
) -> nn.Module:
    """A trained generator in eval mode, from our safetensors or from the original code's file.

    ============  ==================================================================================================
    generator     files
    ============  ==================================================================================================
    resnet, unet  ``latest_net_G.pth`` of pytorch-CycleGAN-and-pix2pix: also old ones with instance norm statistics,
                  or dropout (whose layer names are shifted)
    spade         ``latest_net_G.pth`` of NVlabs/SPADE; spectral norm is folded
    munit         ``gen_*.pt`` of NVlabs/MUNIT
    cartoongan    ``*_net_G_float.pth`` of the PyTorch port, turned from BGR to RGB
    srvgg         ``realesr-animevideov3.pth``, ``realesr-general-x4v3.pth`` of Real-ESRGAN; pictures in [0, 1]
    rrdbnet       ``RealESRGAN_x4plus.pth``, ``_anime_6B.pth``; ESRGAN's two older layouts; pictures in [0, 1]
    stylegan2     rosinality's ``.pt``; the state dict of a stylegan2-ada or stylegan3 ``G_ema``
    ============  ==================================================================================================

    Each is read in ``gantailor/zoo/generators/<family>/checkpoint.py``. What these hold is found wherever it lies in
    the file: in mappings and lists (``{"netG": ..., "epoch": 3}``, a LightningModule's ``state_dict``), and behind
    prefixes (``module.``, ``_orig_mod.``, ``netG.``). Widths, depth, norm and channels are read from the tensors.

    Args:
        path: the file; where several generators in it fit, ``FILE:netG`` or ``FILE:state_dict.generator``.
        generator: zoo name or ``module:name``.
        side: MUNIT only: ``a`` (default), ``b``, ``a2b`` or ``b2a``, see ``read_munit``.
        rename: parts of the file's names and what they are here, ``{"block": "conv_block"}``, see ``renamed``.
        example: an input and the output that the generator is known to give: one .npz or .safetensors with ``input``
            and ``output``, or two pictures. Names that differ are then matched by the order of shapes; what was read
            must give the output, see ``Example``.
        options: as for ``build``; over those that the file tells.

    Raises:
        CheckpointError: missing, damaged or unsafe file; another architecture, or other options than the file's (they
            are named); several generators that fit; a tensor that is no weight (complex, NaN, whole numbers); another
            output than the example's.
    """
    return read_teacher(path, generator=generator, side=side, rename=rename, example=example, **options).module


def read_teacher(
    path: str | Path,
    *,
    generator: str,
    side: str | None = None,
    rename: Mapping[str, str] | None = None,
    example: Sequence[str | Path] | str | Path | None = None,
    matched: Matched | None = None,
    use: Use = _as_it_is,
    **options: Any,
) -> Loaded:
    """The same with the options that the generator was built with.

    Args:
        matched: names that were matched and proved before; the example is not asked again.
        use: from the loaded generator to the one that gives the example's output.
    """
    record, (file, inside), known = find_generator(generator), split_file(path), None
    source = str(file)
    loaded = descended(renamed(as_float32(read_file(file)), rename or {}, source), inside, source)
    search = Search(record, options, {"side": side} if side else {}, source)
    if matched is not None:
        loaded = matched.state(loaded, source)
    else:
        known = example_of(example)
    try:
        found = search.one(loaded, inside)
    except CheckpointError:
        matched = None if known is None else match(record, options, loaded, known, source, use)
        if matched is None:
            raise
        found = search.one(matched.state(loaded, source), inside)
    check_tensors(found.state, source, found.expected)
    model = record.make(**found.options)
    model.load_state_dict(completed(model.state_dict(), record.completed(model, found.state)))
    if known is not None and (error := known.error(use(model.eval()))) > known.allowed:
        raise CheckpointError(
            f"{source!r} is read as {record.name}, which differs from teacher.example by {known.said(error)}; look at "
            "its generator, options and teacher.statistics, or leave teacher.example out"
        )
    return Loaded(model.eval(), found.options, matched)


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file as float32.

    Raises:
        CheckpointError: missing, damaged or unsafe file, one that holds more than tensors, or NaN.
    """
    loaded, source = as_float32(read_file(path)), str(path)
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{source!r} is a {type(loaded).__name__}, not a state_dict of tensors; save with {SAVE}")
    strange = next((name for name, value in loaded.items() if not isinstance(value, Tensor)), None)
    if strange is not None:
        raise CheckpointError(
            f"{source!r} is not a state_dict of tensors ({strange!r} is a {type(loaded[strange]).__name__}); "
            f"save with {SAVE}"
        )
    check_tensors(loaded, source)
    return loaded


def load_state(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Put the tensors into the model, without ``module.`` and what else wrappers put between their names.

    Running statistics that old instance norms left idle are dropped.

    Raises:
        CheckpointError: names the first keys or shapes in which file and model differ.
    """
    expected = model.state_dict()
    whole = completed(expected, state if set(state) >= set(expected) else unwrapped(state))
    missing, extra, shapes = differences(expected, whole)
    if missing or extra or shapes:
        parts = [f"missing: {', '.join(missing[:3])}"] * bool(missing)
        parts += [f"not in the generator: {', '.join(extra[:3])}"] * bool(extra)
        parts += [f"shapes: {'; '.join(shapes[:3])}"] * bool(shapes)
        raise CheckpointError(
            f"{source!r} belongs to another architecture ({'. '.join(parts)}); name the generator and its options "
            "that it was trained with"
        )
    model.load_state_dict(whole)
