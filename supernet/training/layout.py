"""Memory layout: pictures with channels innermost, what keeps them so between two convolutions, and whether it pays.

A processor's convolutions are up to three times as fast on such pictures (oneDNN, bfloat16 units), if no copy stands
between two of them. PyTorch's instance norm lays everything out anew, and autocast widens a reflection pad to float32
and back; inside ``innermost`` neither does.
"""

from __future__ import annotations

import hashlib
import inspect
import time
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gantailor.supernet.device import HOST, described, find_precision, processor, synchronize
from gantailor.supernet.files import cache_folder, write_json
from gantailor.supernet.received.documents import read_json
from gantailor.supernet.training import distributed

WORTH = 500  # steps from which on a measurement of four of them is no loss
ROUNDS = 2
SIGNATURE = inspect.signature(F.instance_norm)


class innermost(TorchFunctionMode):  # noqa: N801  (a context manager)
    """Inside, on a CPU, instance norms and pads leave pictures as they lie; all values stay what they were."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if func is F.instance_norm:
            return _instance_norm(*args, **options)
        mode = args[2] if len(args) > 2 else options.get("mode")
        widened = func is F.pad and mode in ("reflect", "replicate")
        with torch.autocast(HOST.type, enabled=False) if widened else nullcontext():
            return func(*args, **options)


def _instance_norm(*args: Any, **options: Any) -> Tensor:
    """As PyTorch's. One picture's is a batch norm, which has a kernel for channels innermost."""
    values = SIGNATURE.bind(*args, **options)
    values.apply_defaults()
    given = values.arguments
    x, statistics = given["input"], given["running_mean"] is not None or not given["use_input_stats"]
    lies_so = x.ndim == 4 and x.device == HOST and x.is_contiguous(memory_format=torch.channels_last)
    if not lies_so or statistics or x[0, 0].numel() == 1:
        return F.instance_norm(*args, **options)
    weight, bias, eps = given["weight"], given["bias"], given["eps"]
    pictures = torch.split(x, 1) if len(x) > 1 else (x,)  # a split's backward copies, of one part too
    each = [torch.batch_norm(one, weight, bias, None, None, True, 0.0, eps, False) for one in pictures]
    return each[0] if len(each) == 1 else torch.cat(each)


def measured(task: Any, batch: Any, *, steps: int) -> str:
    """Lay a task out as its steps are faster; decided once for all processes, and kept for this machine.

    What was found comes in words; nothing where nothing was measured.

    Args:
        task: has ``lay_out`` (``ImageToImage``).
        batch: of the first step.
        steps: of the training; one of fewer than ``WORTH`` is left as it is.
    """
    if steps < WORTH or not getattr(task, "repeatable", False):
        return ""
    file = cache_folder() / f"layout-{_digest(task)}.json"
    kept = read_json(file) if distributed.rank() == 0 and file.exists() else {}
    faster = kept.get("channels_last") is True
    (known,) = distributed.agree(bool(kept))
    if not known:
        seconds = _seconds(task, batch)
        faster = seconds[True] < seconds[False]
        if distributed.rank() == 0:
            write_json(file, {"channels_last": faster, "seconds": {str(k).lower(): v for k, v in seconds.items()}})
    (faster,) = distributed.agree(distributed.rank() == 0 and faster)
    task.lay_out(faster)
    return f"channels {'innermost' if faster else 'as they are'}: measured {'before ' if known else ''}on this machine"


def _seconds(task: Any, batch: Any) -> dict[bool, float]:
    """Of forward and backward in both layouts, in turn; nothing that a step changes is changed."""
    before = {name: [b.clone() for b in part.buffers()] for name, part in task.parts().items()}
    taken: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(ROUNDS + 1):  # the first loads libraries and fills a teacher's cache
        for way, times in taken.items():
            task.lay_out(way)
            started = time.perf_counter()
            task.backward(0, batch, 1.0)
            synchronize(task.device)
            times.append(time.perf_counter() - started)
    for optimizer in task.optimizers.values():
        optimizer.zero_grad(set_to_none=True)
    for name, part in task.parts().items():
        for buffer, value in zip(part.buffers(), before[name], strict=True):
            buffer.copy_(value)
    return {way: min(times[1:]) for way, times in taken.items()}


def _digest(task: Any) -> str:
    """Of what a step's time depends on."""
    recipe = task.recipe
    shapes = [tuple(p.shape) for part in task.parts().values() for p in part.parameters()]
    where = (processor(), described(task.device))
    how = (find_precision(recipe.precision, task.device), torch.get_num_threads(), torch.__version__)
    chosen = recipe.model_dump(exclude={"kimg", "lr", "seed", "channels_last", "watch_kimg", "decay_kimg"})
    return hashlib.sha256(repr((where, how, chosen, shapes)).encode()).hexdigest()[:16]
