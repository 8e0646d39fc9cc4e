"""Files that are whole or absent: atomic writes, safetensors with JSON beside the tensors."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from gantailor.supernet.errors import CheckpointError, ConfigError, UnreadableError, why_of
from gantailor.supernet.received.documents import LARGEST_LOG, parse_json, parse_lines, read_text

SCRATCH = ".unfinished"  # ends the names of files that are being written


def cache_path() -> Path:
    """``$GANTAILOR_CACHE``, or ``gantailor`` in the user's cache folder, whether it is there or not."""
    default = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(os.environ.get("GANTAILOR_CACHE") or Path(default) / "gantailor")
    with suppress(RuntimeError):  # there is no home
        folder = folder.expanduser()
    return folder.absolute()


def cache_folder() -> Path:
    """``cache_path``, made if missing.

    Raises:
        ConfigError: it cannot be made.
    """
    folder = cache_path()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the cache folder {str(folder)!r} cannot be made: {error.strerror}; set $GANTAILOR_CACHE to one that can"
        ) from None
    return folder


def write_bytes(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write ``content`` so that a reader, or a kill at any moment, sees the old file or the new one.

    Args:
        mode: who may read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        scratch = f".{path.name[:150]}.{os.getpid()}-"
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=scratch, suffix=SCRATCH, delete=False) as file:
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                Path(file.name).unlink()
                raise
        Path(file.name).chmod(mode)  # NamedTemporaryFile makes them private
        Path(file.name).replace(path)
    except OSError as error:
        error.filename = str(path)  # not the scratch file's name; a full disk gives none at all
        raise


def clear_unfinished(folder: Path) -> None:
    """Delete what writers left behind that were killed: as large as what they wrote, and of no use."""
    for file in folder.rglob(f".*{SCRATCH}"):
        writer = file.name.removesuffix(SCRATCH).rpartition("-")[0].rpartition(".")[2]
        if writer.isdigit() and not (int(writer) != os.getpid() and Path("/proc", writer).exists()):
            file.unlink(missing_ok=True)


def write_json(path: Path, value: Any, *, mode: int = 0o644) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode(), mode=mode)


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a ``.npy``, atomically."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_bytes(path, buffer.getvalue())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, without one that a kill cut off; none where there is no such file.

    Raises:
        UnreadableError: it is no text.
    """
    return parse_lines(read_text(path, largest=LARGEST_LOG)) if path.exists() else []


def cut_rows(path: Path, step: int) -> list[dict[str, Any]]:
    """Take the lines of later steps out of a log: a training that was killed does these steps again. What stays."""
    kept = [row for row in read_rows(path) if row.get("step", step) <= step]
    content = "".join(json.dumps(row) + "\n" for row in kept).encode()
    if path.exists() and path.read_bytes() != content:
        write_bytes(path, content)
    return kept


def save_tensors(path: Path, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
    """Write tensors and a JSON object into one safetensors file, atomically."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_bytes(path, save(plain, metadata={"info": json.dumps(dict(info))}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save_tensors`` wrote.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    with _opened(path) as (file, info):
        return {name: file.get_tensor(name) for name in file.keys()}, info  # noqa: SIM118


def stored_info(path: Path) -> dict[str, Any]:
    """The JSON object of such a file, without reading its tensors; empty where it is a file of another kind.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    if path.suffix != ".safetensors":
        return {}
    with _opened(path) as (_, info):
        return info if isinstance(info, dict) else {}


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """A safetensors file, and the JSON beside its tensors.

    Raises:
        CheckpointError: within the block too, the file is missing or damaged.
    """
    if not path.is_file():
        raise CheckpointError(f"checkpoint {str(path)!r} does not exist; give the path of a .safetensors file")
    try:
        with safe_open(path, framework="pt") as file:
            yield file, parse_json((file.metadata() or {}).get("info", "{}"), str(path))
    except (SafetensorError, UnreadableError, OSError) as error:
        raise CheckpointError(
            f"{str(path)!r} is not a whole safetensors file ({why_of(error)}); copy or make it again"
        ) from None


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as flat tensors, ``<parameter number>.<name>``."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value for number, slots in state.items() for name, value in slots.items()}


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put what ``optimizer_tensors`` gave back."""
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for key, stored in tensors.items():
        number, name = key.split(".", 1)
        parameter, value = parameters[int(number)], stored
        if value.shape == parameter.shape:  # a fused optimiser goes through memory: moments lie as their parameters do
            value = torch.empty_like(parameter, dtype=stored.dtype).copy_(stored)
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def state_digest(model: nn.Module, text: str = "") -> str:
    """sha256 of a text, the names and the values of a model's weights and buffers."""
    sha = hashlib.sha256(text.encode())
    for name, tensor in model.state_dict().items():
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
