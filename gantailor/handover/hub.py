"""A narrow generator as Hugging Face's hub has models: ``config.json``, ``model.safetensors`` and a card in a folder.

    HubGenerator.of("runs/mine").save_pretrained("narrow")  # or .push_to_hub("me/narrow")
    narrow = HubGenerator.from_pretrained("narrow")  # or "me/narrow"; so does gantailor.load("narrow")

Folders are read and written without a network. No pickle is read, and code that a file names is imported only if it is
your own or you trust it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from gantailor.export.weights import FILE, ORIGIN, plain, read_weights, write_weights
from gantailor.handover.card import FILE as CARD
from gantailor.run.folder import RunFolder, damaged
from gantailor.run.run import rebuilt
from gantailor.supernet.errors import CheckpointError, ConfigError
from gantailor.supernet.files import write_json
from gantailor.supernet.graph import SubnetConfig
from gantailor.zoo.checkpoints import load_state

try:
    from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
except ImportError:
    raise ConfigError("huggingface_hub is not installed; run: pip install 'gantailor[hub]'") from None


class HubGenerator(nn.Module, PyTorchModelHubMixin, library_name="gantailor", tags=["gan", "pruning"]):  # type: ignore[misc]
    """A narrow generator with where it comes from; the arguments are what ``config.json`` holds.

    Args:
        generator: a zoo name or ``module:function``.
        options: of that generator.
        config: width names to channels.
        input_shapes: one for each input that it was traced with, batch included.
        decisions: what tracing and repair decided.

    Attributes:
        narrow: the plain module.
    """

    def __init__(
        self,
        generator: str,
        options: Mapping[str, Any],
        config: Mapping[str, int],
        input_shapes: list[Any],
        decisions: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.origin = dict(zip(ORIGIN, (generator, options, config, input_shapes, decisions), strict=True))
        self.narrow = rebuilt(self.origin).extract(SubnetConfig(config)).eval()
        self.card: Path | None = None

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """The narrow generator's own."""
        return self.narrow(*inputs, **options)

    @classmethod
    def of(cls, place: str | Path, *, trust_code: bool = False) -> HubGenerator:
        """From a run folder, its ``export``, a ``model.safetensors``, or a folder that ``save_pretrained`` wrote.

        Raises:
            CheckpointError: there is none, it is damaged, or somebody else made it and it names code.
        """
        folder = Path(place)
        files = (folder, folder / FILE, RunFolder(folder).export / FILE)
        file = next((one for one in files if one.is_file()), None)
        if file is None:
            raise CheckpointError(f"{str(place)!r} holds no {FILE}; run gantailor export on it first")
        state, origin = read_weights(file, trust_code=trust_code)
        with damaged(file):
            made = cls(**origin)
        load_state(made.narrow, state, str(file))
        made.card = file.with_name(CARD) if file.with_name(CARD).exists() else None
        return made.eval()

    def _save_pretrained(self, save_directory: Path) -> None:
        write_weights(save_directory, self.narrow, self.origin)
        write_json(save_directory / "config.json", plain(self.origin))  # the mixin takes ``config`` for something else
        if self.card is not None and not (save_directory / CARD).exists():
            shutil.copyfile(self.card, save_directory / CARD)

    @classmethod
    def from_pretrained(cls, place: str | Path, **options: Any) -> HubGenerator:  # type: ignore[override]
        """From a folder here, or of a repository on the hub, as the mixin has it; ``trust_code`` as for ``load``.

        Raises:
            CheckpointError: as for ``of``; or the hub does not give it.
        """
        try:
            return super().from_pretrained(place, **options)  # type: ignore[no-any-return]
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
            raise CheckpointError(
                f"{str(place)!r} is no folder here, and the hub does not give its {FILE}: {str(error).splitlines()[0]}"
            ) from None

    @classmethod
    def _from_pretrained(cls, *, model_id: str, trust_code: bool = False, **options: Any) -> HubGenerator:
        if Path(model_id).is_dir():
            return cls.of(Path(model_id) / FILE, trust_code=trust_code)
        names = ("revision", "cache_dir", "force_download", "token", "local_files_only")
        return cls.of(hf_hub_download(model_id, FILE, **{name: options[name] for name in names}), trust_code=trust_code)
