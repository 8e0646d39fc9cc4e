"""A commented YAML file for the pictures and the checkpoint that were looked at."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from gantailor.starting.checkpoint import Checkpoint, directed, recognised, sides_for
from gantailor.starting.pictures import HELD_OUT, SIDES, Pictures, look_at
from gantailor.supernet.errors import ConfigError

BATCH = 16  # the usual one
SEEN = 100  # times that a training sees each picture, within LEAST and MOST thousand images
LEAST, MOST = 6, 100


@dataclass(frozen=True)
class Proposal:
    """A configuration with what it rests on.

    Attributes:
        settings: nested, in the order of the file.
        found: what was seen, a sentence each; ``assumed`` what was not.
    """

    settings: dict[str, Any]
    found: tuple[str, ...]
    assumed: tuple[str, ...]

    def yaml(self, name: str) -> str:
        """The file: settings with a comment on each, and what it rests on at the top.

        Args:
            name: of the file, for the commands in it.
        """
        lines = [f"# gantailor compress {name} --dry-run   checks all of it and says how long it takes"]
        lines += [f"# gantailor compress {name} --out runs/mine", "#"]
        lines += [f"# Found: {_line(text)}." for text in self.found]
        lines += [f"# Assumed: {_line(text)}." for text in self.assumed]
        lines += ["# Every other setting, with its default: gantailor settings", ""]
        for key, value in self.settings.items():
            lines.append(f"{key}: {_flow(value)}{_remark(key)}")
        return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    """A setting's value in one line of YAML."""
    text: str = yaml.safe_dump([value], default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True)
    return text.strip()[1:-1]  # in a list, for a scalar alone ends in a document's end


REMARKS = {
    "generator": "of the zoo, or module:name of your own; gantailor inspect shows its widths",
    "options": "of the generator",
    "teacher": "what is learned from",
    "method": "the system; gantailor settings method lists them",
    "data": "docs/data.md has the layouts",
    "budget": "of the generator's MACs; or a number: 5.0G, or milliseconds: latency_ms<=12@laptop.json",
    "train": "kimg: thousand images seen while channels close, one by one: any budget is then a look-up",
    "finetune": "of the chosen widths",
}


def _remark(key: str) -> str:
    return f"  # {REMARKS[key]}" if key in REMARKS else ""


def _line(text: str) -> str:
    """Names of files may hold anything: in a comment they stay in their line."""
    return "".join(one if one.isprintable() else "?" for one in text)


def propose(folder: str | Path, teacher: str | None = None) -> Proposal:
    """A configuration for what lies there.

    Raises:
        ConfigError: the folder tells nothing, or pictures and checkpoint do not go together.
        CheckpointError: the checkpoint cannot be read, or is none of the zoo's.
    """
    checkpoint = None if teacher is None else recognised(teacher)
    pictures = look_at(folder)
    found = list(pictures.said)
    if checkpoint is None:
        return _untaught(pictures, found)
    options = _flow(dict(checkpoint.options))
    found.append(f"{Path(checkpoint.file).name} holds a {checkpoint.generator}, options {options}")
    return _taught(pictures, checkpoint, found)


def _taught(pictures: Pictures, checkpoint: Checkpoint, found: list[str]) -> Proposal:
    traits, assumed = checkpoint.traits, [] if checkpoint.enlarges else list(pictures.assumed)
    if traits.takes == "labels" and pictures.kind != "labels":
        raise ConfigError(
            f"{checkpoint.file!r} is a {checkpoint.generator}, which takes label maps, and "
            f"{pictures.settings['path']!r} holds none; give a folder with train_label/ and train_img/"
        )
    if traits.takes == "pictures" and pictures.kind == "labels":
        raise ConfigError(
            f"{checkpoint.file!r} is a {checkpoint.generator}, which takes pictures, and {pictures.settings['path']!r} "
            "holds label maps; give a folder of pictures, or another checkpoint"
        )
    pictures = _for_teacher(pictures, checkpoint)
    if traits.takes == "pictures" and pictures.kind in ("folder", "folders") and not pictures.alone:
        pictures, why = directed(checkpoint, pictures)
        assumed.append(why)
    if pictures.kind == "domains" and traits.takes == "pictures":
        side = pictures.settings.get("sides", SIDES)[0]
        assumed.append(f"the teacher takes pictures of {side}; data.direction: BtoA where it takes the other's")
    settings: dict[str, Any] = {"generator": checkpoint.generator, "options": dict(checkpoint.options)}
    settings["teacher"] = checkpoint.file
    settings["data"] = {**pictures.settings, **_size(pictures, checkpoint, assumed)}
    settings["budget"] = "0.1x"
    if traits.takes == "latents":
        found = [text for text in found if text != HELD_OUT]  # it stands beside all training pictures, as is usual
        settings |= {"method": "diversity", "finetune": _training(pictures, assumed)}
    else:
        settings |= {"train": _training(pictures, assumed), "finetune": _training(pictures, [])}
    return Proposal(settings, tuple(found), tuple(assumed))


def _for_teacher(pictures: Pictures, checkpoint: Checkpoint) -> Pictures:
    """As this generator takes them."""
    settings = dict(pictures.settings)
    if checkpoint.enlarges:
        settings = {"kind": "super_resolution", "path": settings["path"]}
    elif pictures.kind == "labels":
        channels = checkpoint.traits.input_shapes[0][0] if checkpoint.traits.input_shapes else 0
        edges = any("instance maps" in text for text in pictures.said)
        settings |= {"classes": channels - 1 - edges} if channels > 2 else {}
    elif checkpoint.traits.takes == "latents" and pictures.kind == "folder":
        settings["direction"] = "unpaired"
    return replace(pictures, settings=settings)


def _size(pictures: Pictures, checkpoint: Checkpoint | None, assumed: list[str]) -> dict[str, Any]:
    """``data.size``, as the generator and the pictures are."""
    traits = None if checkpoint is None else checkpoint.traits
    if checkpoint is not None and checkpoint.enlarges:
        assumed.append("the default size of small pictures, 64 px: tiles of large ones are made small")
        return {"size": 64}
    if traits is not None and traits.size is not None:
        return {"size": traits.size}  # it makes no other
    size = sides_for(pictures.shape, 1 if traits is None else traits.size_multiple)
    own = pictures.shape
    if own is None or (size if isinstance(size, tuple) else (size, size)) != own:
        was = "no picture was looked at" if own is None else f"pictures are {own[0]} x {own[1]}"
        assumed.append(f"size {size} px, as the generator was probably trained ({was}, height x width)")
    return {"size": list(size) if isinstance(size, tuple) else size}


def _training(pictures: Pictures, assumed: list[str]) -> dict[str, Any]:
    """How long, by the number of pictures, in batches that there are pictures for."""
    count = pictures.count
    if count is None:
        return {"kimg": LEAST}
    kimg = min(MOST, max(LEAST, math.ceil(SEEN * count / 1000)))
    assumed.append(f"trainings of {kimg} thousand images; longer is better, --dry-run says how long they take")
    return {"kimg": kimg} | ({"batch": max(1, count // 2)} if count < 2 * BATCH else {})


def _untaught(pictures: Pictures, found: list[str]) -> Proposal:
    """From pictures alone, where they say what a generator is to do."""
    path, assumed = pictures.settings["path"], list(pictures.assumed)
    if pictures.alone or pictures.kind not in ("folder", "folders", "domains"):
        raise ConfigError(
            f"{str(path)!r} holds {pictures.said[0]}, and nothing says what a generator makes of them; give its "
            "checkpoint: --teacher FILE (gantailor teacher trains one)"
        )
    size = _size(pictures, None, assumed)
    large = max(pictures.shape or (0, 0)) >= 128
    size["size"] = _of_four(size["size"])
    name, ngf = ("resnet_9blocks", 64) if large else ("resnet_6blocks", 48)
    assumed.append(f"no teacher was given: a {name} is trained from scratch, method hypernetwork")
    if pictures.kind != "domains":
        assumed.append("direction AtoB; data.direction: BtoA exchanges input and target")
    training = _training(pictures, assumed)
    training = {"preset": "teacher-cyclegan", **training} if pictures.kind == "domains" else training
    settings: dict[str, Any] = {"generator": name, "options": {"ngf": ngf}, "method": "hypernetwork"}
    settings |= {"teacher": "none", "data": {**pictures.settings, **size}, "budget": "0.25x"}
    return Proposal(settings | {"train": training, "finetune": dict(training)}, tuple(found), tuple(assumed))


def _of_four(size: int | list[int]) -> int | list[int]:
    """Sides that a ResNet halves twice."""
    return size // 4 * 4 if isinstance(size, int) else [side // 4 * 4 for side in size]


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet.

    Raises:
        ConfigError: it is there, or cannot be written.
    """
    try:
        with path.open("x", encoding="utf8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{str(path)!r} is there already and stays as it is; choose another --out") from None
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be written: {error.strerror}; choose another --out") from None
