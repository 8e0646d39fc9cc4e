"""Weights files, known by their content and not by their suffix; whatever else a file is, is said."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gantailor.supernet.device import HOST
from gantailor.supernet.errors import CheckpointError
from gantailor.supernet.files import load_tensors

SAVE = "torch.save(model.state_dict(), 'weights.pth')"
OTHERS = {
    b"\x1f\x8b": "a gzip archive; unpack it and give the weights inside",
    b"BZh": "a bzip2 archive; unpack it and give the weights inside",
    b"7z\xbc\xaf": "a 7z archive; unpack it and give the weights inside",
    b"Rar!": "a RAR archive; unpack it and give the weights inside",
    b"\x89HDF": f"an HDF5 file, as Keras writes; convert it to PyTorch and save with {SAVE}",
    b"\x93NUMPY": f"a NumPy array; make a state dict of it and save with {SAVE}",
    b"\x89PNG": "a picture; give the file with the weights",
    b"\xff\xd8\xff": "a picture; give the file with the weights",
}


def _safe() -> list[Any]:
    """Plain data that training scripts save beside tensors: settings of argparse, and NumPy's numbers."""
    kinds = (np.float64, np.float32, np.int64, np.int32, np.bool_)
    scalar = np.float64(0).__reduce__()[0]  # the function that pickles of NumPy's numbers name
    return [argparse.Namespace, np.dtype, scalar, *{type(np.dtype(kind)) for kind in kinds}]


def split_file(path: str | Path) -> tuple[Path, str]:
    """``FILE:inside`` as the file and the path inside; a file of that very name is meant as a whole.

    >>> split_file("nets.pth:netG")
    (PosixPath('nets.pth:netG'), '')
    """
    text = str(path)
    if not Path(text).exists():
        for place in reversed([match.start() for match in re.finditer(":", text)]):
            if Path(text[:place]).exists():
                return Path(text[:place]), text[place + 1 :]
    return Path(text), ""


def read_file(path: Path) -> Any:
    """What a PyTorch or safetensors file holds, tensors on the CPU; code in it is not run.

    Raises:
        CheckpointError: missing, damaged or unsafe, or a file of another kind.
    """
    if path.is_dir():
        raise CheckpointError(f"{str(path)!r} is a folder; give the path of the .pth or .safetensors file in it")
    if not path.is_file():
        raise CheckpointError(f"checkpoint {str(path)!r} does not exist; give the path of a .pth or .safetensors file")
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise CheckpointError(
            f"{str(path)!r} cannot be read ({error.strerror}); give it the right to be read"
        ) from None
    named_so = path.suffix == ".safetensors" and not head.startswith((b"PK", b"\x80"))
    if named_so or _is_safetensors(head, path.stat().st_size):
        return load_tensors(path)[0]
    _check_kind(path, head)
    return _torch_load(path)


def _is_safetensors(head: bytes, size: int) -> bool:
    """Eight bytes of the header's length, then the header, in JSON."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def _check_kind(path: Path, head: bytes) -> None:
    """That it is a zip archive or a pickle of PyTorch, as far as its first bytes tell."""

    def refuse(what: str) -> CheckpointError:
        return CheckpointError(f"{str(path)!r} is no checkpoint but {what}")

    if not head:
        raise CheckpointError(f"{str(path)!r} is empty; copy it again")
    other = next((what for start, what in OTHERS.items() if head.startswith(start)), None)
    if other is not None:
        raise refuse(other)
    if head.startswith(b"PK"):
        _check_archive(path)
    elif head[257:262] == b"ustar":
        raise refuse("a tar archive; unpack it and give the weights inside")
    elif head.startswith(b"version https://git-lfs"):
        raise refuse("a pointer of Git LFS to one; run: git lfs pull")
    elif _is_text(head):
        raise refuse(f"a text ({head[:24].decode(errors='ignore').splitlines()[0].strip()!r} ...); download it again")
    elif head[:1] != b"\x80":
        raise refuse(f"a file that neither PyTorch nor safetensors wrote; save with {SAVE}")


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # BadZipFile, and what a damaged directory makes of the rest
        raise CheckpointError(f"{str(path)!r} is not a whole checkpoint (its end is missing); copy it again") from None
    inside = {name.rpartition("/")[2] for name in names}
    if "data.pkl" in inside and "constants.pkl" in inside:
        raise CheckpointError(
            f"{str(path)!r} is a TorchScript program; save its tensors alone: "
            f"torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pth')"
        )
    if "data.pkl" not in inside:
        arrays = all(name.endswith(".npy") for name in names)
        what = "NumPy arrays" if arrays and names else f"{', '.join(names[:3]) or 'nothing'}"
        raise CheckpointError(
            f"{str(path)!r} is no checkpoint but a zip archive of {what}; give the weights themselves"
        )


def _is_text(head: bytes) -> bool:
    text = head.decode("utf8", errors="ignore")
    shown = all(letter.isprintable() or letter.isspace() for letter in text)
    return bool(text.strip()) and len(text.encode()) >= len(head) - 3 and shown


def _torch_load(path: Path) -> Any:
    try:
        with path.open("rb") as file, torch.serialization.safe_globals(_safe()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other protocols of pickle: it is read or refused
            return torch.load(file, map_location=HOST, weights_only=True)  # a path would be judged by its suffix
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(path, str(error))) from None
    except Exception as error:  # broken bytes raise whatever PyTorch's reader stumbles over, struct.error too
        said = " ".join(str(error).split())
        said = said if len(said) < 120 else said[:120].rpartition(" ")[0] + " ..."
        raise CheckpointError(f"{str(path)!r} is not a whole checkpoint ({said}); copy it again") from None


def _refusal(path: Path, said: str) -> str:
    """One line about a pickle that PyTorch refused: what is in it, and how to save the tensors alone."""
    found = re.search(r"GLOBAL ([\w.]+)", said)
    name = found[1] if found else ""
    if name.startswith(("torch.nn.", "__main__.")):
        what = f"holds a whole pickled model ({name}), not its tensors"
    elif name:
        what = f"wants to run code when it is read (it names {name}, perhaps of a whole pickled model)"
    else:
        what = "holds pickled objects that are not tensors"
    return f"{str(path)!r} {what}, and was refused; where it was made, save the tensors alone: {SAVE}"
