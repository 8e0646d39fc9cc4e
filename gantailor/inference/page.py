"""A page on this machine alone to try a generator on pictures of one's own, by Gradio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gantailor.evaluators.pictures.reader import PictureReader
from gantailor.inference.files import ALPHA, from_model, to_model
from gantailor.inference.tiles import Tiling
from gantailor.supernet.errors import ConfigError, GantailorError

ADDRESS = "127.0.0.1"


def tried(tiling: Tiling, file: str | Path) -> np.ndarray:
    """What the model makes of a picture's file: uint8 ``[H, W, 3 or 4]``, the pixels of ``gantailor run``.

    Raises:
        DataError: it is no picture.
        ConfigError, ExportError: the model does not take it.
    """
    pixels = PictureReader(channels=ALPHA).read(Path(file))
    assert pixels is not None, "what cannot be read raises"
    made = from_model(tiling(to_model(pixels, tiling.model)).picture, pixels, tiling.model)
    return np.asarray(Image.fromarray(made.squeeze()).convert("RGBA" if made.shape[-1] == ALPHA else "RGB"))


def make_page(tiling: Tiling) -> Any:
    """The page, a ``gradio.Blocks``; ``launch`` serves it.

    Raises:
        ConfigError: Gradio is not installed.
    """
    try:
        import gradio
    except ImportError:
        raise ConfigError("Gradio is not installed; run: pip install 'gantailor[page]'") from None

    def run(file: str | None) -> Any:
        if file is None:
            return None
        try:
            return tried(tiling, file)
        except GantailorError as error:
            raise gradio.Error(str(error)) from None

    given = gradio.Image(type="filepath", image_mode=None, label=f"picture ({tiling.model.takes})")
    return gradio.Interface(
        run,
        given,
        gradio.Image(label="made", format="png"),
        title="gantailor",
        description=tiling.model.name,
        flagging_mode="never",
        analytics_enabled=False,
    )
