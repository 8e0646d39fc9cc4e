"""Scores of two folders of pictures, with no generator at all."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.evaluators.features.extractor import Extractor, extractor_provenance
from gantailor.evaluators.metric import Metric, find_metric
from gantailor.evaluators.metrics import METRICS
from gantailor.evaluators.metrics.distribution import OF_SETS, feature_score_name, known_metrics, score_features
from gantailor.evaluators.pictures.files import picture_files
from gantailor.evaluators.pictures.modes import background_of
from gantailor.evaluators.pictures.names import match_names
from gantailor.evaluators.pictures.reader import READER_VERSION, PictureReader, say, tell_folders
from gantailor.evaluators.scores import SEEN, Score, spread
from gantailor.evaluators.scoring import Scoring
from gantailor.supernet.errors import EvaluationError
from gantailor.supernet.files import write_array

logger = logging.getLogger(__name__)
FOLDER_METRICS = ("fid", "kid", "precision", "recall")  # of two folders, where none are asked for
SAMPLE = 16  # pictures that are looked at, whether they are the reference's
BY_NAME = ("pictures", "outputs")  # what a metric may compare where each picture has a partner of its name


@dataclass(frozen=True)
class Pictures:
    """The picture files of a folder, in order of their names, and the hash of their contents."""

    folder: Path
    files: tuple[Path, ...]
    digest: str
    hashes: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, folder: str | Path) -> Pictures:
        """Every picture in a folder.

        Raises:
            EvaluationError: the folder is missing or holds no pictures, or one cannot be opened.
        """
        path = Path(folder)
        files = picture_files(path, what="folder", error=EvaluationError)
        tell_folders(path, "folder")
        hashes = tuple(_file_digest(file) for file in files)
        return cls(path, tuple(files), hashlib.sha256(b"".join(hashes)).hexdigest(), hashes)

    def batches(
        self, *, batch: int = 32, skip_corrupt: bool = False, background: str = "white"
    ) -> Iterator[tuple[Tensor, list[Path]]]:
        """Pictures of one size together, ``[n, 3, H, W]`` in [-1, 1], at most ``batch``; all become RGB."""
        waiting: list[tuple[Tensor, Path]] = []
        reader = picture_reader(skip_corrupt=skip_corrupt, background=background)
        for file in self.files:
            pixels = reader.read(file)
            if pixels is None:
                continue
            picture = _to_float(pixels)
            if waiting and (len(waiting) == batch or waiting[0][0].shape != picture.shape):
                yield torch.stack([p for p, _ in waiting]), [f for _, f in waiting]
                waiting = []
            waiting.append((picture, file))
        if waiting:
            yield torch.stack([p for p, _ in waiting]), [f for _, f in waiting]
        say(f"folder {str(self.folder)!r}", len(self.files), reader.summary())


def picture_reader(*, skip_corrupt: bool = False, background: str = "white") -> PictureReader:
    """Of the pictures that are scored."""
    return PictureReader(
        background=background, skip_corrupt=skip_corrupt, error=EvaluationError, way_out="pass --skip-corrupt"
    )


def _file_digest(file: Path) -> bytes:
    try:
        return hashlib.sha256(file.read_bytes()).digest()
    except OSError as failure:
        raise EvaluationError(
            f"picture {str(file)!r} cannot be opened ({failure.strerror}); mend or remove it"
        ) from None


def _to_float(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div_(127.5).sub_(1)


def features_of(
    pictures: Pictures,
    extractor: Extractor,
    *,
    cache: Path | None = None,
    skip_corrupt: bool = False,
    background: str = "white",
    on_picture: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Features ``[N, d]`` in float32; kept in ``cache`` by the contents of pictures, weights and preprocessing."""
    network = f"{extractor.name}|{extractor.dims}|{extractor.weights_hash}|{extractor.resize}"
    key = f"{READER_VERSION}|{background_of(background)}|{pictures.digest}|{network}"
    file = cache / f"features-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npy" if cache else None
    if file is not None and file.exists():
        with suppress(ValueError, EOFError):  # cut short, as by a full disk: they are made again
            known: np.ndarray = np.load(file, allow_pickle=False)
            return known
    parts, done = [], 0
    for images, files in pictures.batches(skip_corrupt=skip_corrupt, background=background):
        parts.append(extractor(images).cpu().numpy())
        done += len(files)
        if on_picture:
            on_picture(done, len(pictures.files))
    if not parts:
        raise EvaluationError(f"folder {str(pictures.folder)!r} holds no readable picture")
    features = np.concatenate(parts)
    if file is not None and len(features) == len(pictures.files):
        write_array(file, features)
    return features


def score_folders(
    images: str | Path,
    reference: str | Path,
    extractor: Extractor,
    metrics: Sequence[str],
    *,
    cache: Path | None = None,
    skip_corrupt: bool = False,
    background: str = "white",
    seed: int = 2020,
    on_picture: Callable[[int, int], None] | None = None,
) -> dict[str, Score]:
    """Scores of a folder of pictures against a reference folder; the reference's features are cached by content.

    Raises:
        EvaluationError: empty folders, corrupt files (named), unknown metrics, too few images.
    """
    known_metrics(metrics)
    made, real = Pictures.of(images), Pictures.of(reference)
    options = {"skip_corrupt": skip_corrupt, "background": background, "on_picture": on_picture}
    fake_features = features_of(made, extractor, **options)  # type: ignore[arg-type]
    real_features = features_of(real, extractor, cache=cache, **options)  # type: ignore[arg-type]
    provenance = {
        "reference": str(reference),
        "reference_hash": real.digest[:12],
        **SEEN,
        "images": len(fake_features),
        "reference_images": len(real_features),
        **extractor_provenance(extractor),
        "seed": seed,
    }
    values = score_features(fake_features, real_features, metrics, seed=seed)
    return {feature_score_name(m, extractor): OF_SETS[m].score(v, provenance) for m, v in values.items()}


def evaluate_folders(
    scoring: Scoring,
    images: str | Path,
    reference: str | Path,
    metrics: Sequence[str] = FOLDER_METRICS,
    *,
    cache: Path | None = None,
    skip_corrupt: bool = False,
    background: str = "white",
    on_picture: Callable[[int, int], None] | None = None,
) -> dict[str, Score]:
    """Scores of one folder of pictures against another: as sets, and picture by picture where names match.

    Args:
        background: name of the colour that transparent pixels are laid on.

    Raises:
        ConfigError: an unknown metric, or one whose weights were not named.
        EvaluationError: a metric that needs a generator; the same pictures twice; or from the folders.
    """
    check_apart(Pictures.of(images), Pictures.of(reference))
    records = {name: find_metric(name) for name in metrics}
    for name, metric in records.items():
        if not _fits_folders(metric):
            allowed = ", ".join(known for known in METRICS if _fits_folders(find_metric(known)))
            raise EvaluationError(f"metric {name!r} is unknown for folders; allowed are {allowed}")
    as_sets = [name for name, metric in records.items() if metric.compares == "sets"]
    by_name = [name for name in records if name not in as_sets]
    scores: dict[str, Score] = {}
    if as_sets:
        options = {"cache": cache, "on_picture": on_picture, "background": background, "skip_corrupt": skip_corrupt}
        scores |= score_folders(images, reference, scoring.extractor(), as_sets, **options)  # type: ignore[arg-type]
    if by_name:  # one by one: sizes may differ from file to file
        pairs = NamedPairs(images, reference, skip_corrupt=skip_corrupt, background=background)
        scores |= scoring.evaluator(by_name, batch=1)(nn.Identity(), pairs)
    return scores


def check_apart(images: Pictures, reference: Pictures) -> None:
    """That pictures are not compared with themselves; what the two have in common is told.

    Raises:
        EvaluationError: all of them are the reference's own.
    """
    common = len(set(images.hashes) & set(reference.hashes))
    if common == len(set(images.hashes)):
        raise EvaluationError(
            f"every picture of {str(images.folder)!r} is one of {str(reference.folder)!r} itself; a score would "
            "compare them with themselves: give generated pictures"
        )
    if _same_pixels(images, reference):
        raise EvaluationError(
            f"the pictures of {str(images.folder)!r} are those of {str(reference.folder)!r} of the same names, saved "
            "anew; a score would compare them with themselves: give generated pictures"
        )
    if common:
        logger.warning("%s of the %s pictures are the reference's own", common, len(images.files))


def _same_pixels(images: Pictures, reference: Pictures) -> bool:
    """Whether each picture has one of its name in the reference, and those of a sample are the same in all pixels."""
    partners, reader = {file.stem: file for file in reference.files}, picture_reader(skip_corrupt=True)
    if any(file.stem not in partners for file in images.files):
        return False
    chosen = [images.files[row] for row in spread(len(images.files), SAMPLE)]
    pixels = ((reader.read(file), reader.read(partners[file.stem])) for file in chosen)
    return all(made is not None and real is not None and np.array_equal(made, real) for made, real in pixels)


def _fits_folders(metric: Metric) -> bool:
    """Whether no generator is needed; of the metrics of sets those of features can be had from two folders."""
    return metric.compares in BY_NAME or metric in OF_SETS.values()


class NamedPairs:
    """Two folders whose files of one name belong together (``match_names``): first the made, then the real picture.

    A data set for ``Fidelity`` and ``Perceptual`` with ``nn.Identity()`` as generator. Give them ``batch=1`` where
    sizes differ. What has no partner is left out with a warning that counts it.

    Args:
        skip_corrupt: leave out pairs of which a file cannot be read; all are read once more for that.

    Raises:
        EvaluationError: no name occurs in both, or two files of one folder have one name up to the suffix.
    """

    def __init__(
        self, images: str | Path, reference: str | Path, *, skip_corrupt: bool = False, background: str = "white"
    ) -> None:
        made, real = (picture_files(Path(f), what="folder", error=EvaluationError) for f in (images, reference))
        self.matched = match_names(made, real, error=EvaluationError)
        if not self.matched.pairs:
            raise EvaluationError(
                f"no picture of {str(images)!r} has the name of one in {str(reference)!r}; this score compares "
                "picture by picture"
            )
        if rest := self.matched.unmatched():
            logger.warning("%s pairs by name; no partner have %s", len(self.matched.pairs), rest)
        self.reader = picture_reader(skip_corrupt=skip_corrupt, background=background)
        self.files = self._readable() if skip_corrupt else list(self.matched.pairs)
        self.source = f"{reference} by name"

    def _readable(self) -> list[tuple[Path, Path]]:
        pairs = self.matched.pairs
        found = [files for files in pairs if all(self.reader.read(file) is not None for file in files)]
        say("pairs by name", 2 * len(pairs), self.reader.summary())
        if not found:
            raise EvaluationError(f"of {len(pairs)} pairs by name none can be read; give pictures")
        return found

    def __len__(self) -> int:
        return len(self.files)

    def batch(self, indices: np.ndarray) -> tuple[Tensor, Tensor | None]:
        pairs = [self._pair(*self.files[i]) for i in np.asarray(indices).tolist()]
        return torch.stack([made for made, _ in pairs]), torch.stack([real for _, real in pairs])

    def _pair(self, *files: Path) -> tuple[Tensor, Tensor]:
        made, real = (_to_float(pixels) for pixels in map(self.reader.read, files) if pixels is not None)
        if made.shape != real.shape:
            sizes = " and ".join(f"{p.shape[2]}x{p.shape[1]}" for p in (made, real))
            raise EvaluationError(
                f"{str(files[0])!r} and {str(files[1])!r} are of different sizes, {sizes}; make them the same"
            )
        return made, real

    def digest(self) -> str:
        sha = hashlib.sha256()
        for _, real in self.files:
            sha.update(_file_digest(real))
        return sha.hexdigest()[:12]
