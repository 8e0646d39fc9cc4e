"""Every built-in metric by its name; a user's own from a file of theirs; names of scores."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

import gantailor
from gantailor.cli.main import main
from gantailor.evaluators.config import EvaluationConfig
from gantailor.evaluators.conformance import ChannelMeans, MetricConformance, Noise
from gantailor.evaluators.metric import Metric, find_metric, metric_of
from gantailor.evaluators.metrics import METRICS
from gantailor.evaluators.metrics.segmentation import LabelTable
from gantailor.evaluators.pictures.rgb import as_seen
from gantailor.evaluators.scoring import Scoring, scores_to_json
from gantailor.search.budget import Budget
from gantailor.search.results import table
from gantailor.search.scoring import Objective
from gantailor.search.spaces.space import SpaceConfig
from gantailor.search.storage import open_study
from gantailor.search.study import Search
from gantailor.supernet.errors import ConfigError, EvaluationError
from tests.evaluators.test_conformance import Nearest
from tests.evaluators.test_networks import lpips  # noqa: F401  a fixture

OWN = """
import torch
from gantailor.evaluators.metric import Metric
from gantailor.evaluators.scores import provenance_of, render, wanted

passes = []


def make(context):
    def evaluate(generator, pairs):
        passes.append(context.metrics)
        teacher = context.teacher
        aims = (outputs for _, outputs, _ in render(teacher, pairs)) if teacher is not None else None
        near = []
        for _, outputs, targets in render(generator, pairs):
            aim = next(aims) if aims is not None else wanted(targets)
            near.append((outputs - aim).abs().flatten(1).mean(1))
        error, provenance = float(torch.cat(near).mean()), provenance_of(pairs, teacher=teacher)
        return {"top5": top5.score(1 - error, provenance), "l12": l12.score(error, provenance)}

    return evaluate


top5 = Metric(name="top5", unit="share", lower_is_better=False, compares="pictures", make=make)
l12 = Metric(name="l12", unit="mean error", lower_is_better=True, compares="pictures", make=make)


def bare(generator, pairs):
    return {}


def make_early(context):
    def evaluate(generator, pairs):
        return {f"early{layer}[net]": early.score(1.0, provenance_of(pairs)) for layer in ("", "2", "16")}

    return evaluate


early = Metric(
    name="early", unit="distance", lower_is_better=True, compares="outputs", make=make_early, variants=("2", "16")
)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module that is no part of the package, in the folder that one works in."""
    (tmp_path / "own_metrics.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("own_metrics", None)


def nearest():
    return Nearest(LabelTable.read("cityscapes"))


class TestBuiltIns(MetricConformance):
    """Each of the literal dict's, from its name alone."""

    @pytest.fixture(autouse=True, params=METRICS)
    def _metric(self, request, lpips, tmp_path):  # noqa: F811
        self.metric, self.exact = request.param, not request.param.startswith("latency")
        torch.save(nearest().state_dict(), tmp_path / "nearest.pth")
        self.files = {
            "lpips_features": str(lpips / "alex.pth"),
            "lpips_heads": str(lpips / "heads.pth"),
            "segmentation": f"{__name__}:nearest",
            "segmentation_weights": str(tmp_path / "nearest.pth"),
            "path_samples": 20,
        }

    def config(self):
        return EvaluationConfig(**self.files)


@pytest.mark.usefixtures("own")
class TestOwn(MetricConformance):
    metric = "own_metrics:top5"


@pytest.mark.usefixtures("own")
class TestOwnWithDigits(MetricConformance):
    metric = "own_metrics:l12"


def scoring(teacher=None, **config):
    return Scoring(EvaluationConfig(**config), teacher=teacher, extractor=ChannelMeans())


def test_scores_come_as_asked_and_families_share_a_pass(own):
    names = ["own_metrics:top5", "l1", "own_metrics:l12", "fid", "own_metrics:top5[teacher]", "psnr", "macs"]
    scores = scoring(nn.Identity()).evaluator(names)(nn.AvgPool2d(3, 1, 1), Noise())
    assert list(scores) == [
        "own_metrics:top5",
        "own_metrics:l12",
        "l1",
        "psnr",
        "fid[means]",
        "own_metrics:top5[teacher]",
        "macs[true]",
        "macs[published]",
    ]
    assert sys.modules["own_metrics"].passes == [("top5", "l12"), ("top5",)]
    assert scores["own_metrics:top5"].value == 1 > scores["own_metrics:top5[teacher]"].value
    assert scores_to_json(scores)["own_metrics:l12"]["provenance"]["gantailor"] == gantailor.__version__


def test_a_search_follows_ones_own(own, tmp_path):
    """It maximises what the record calls better when higher."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 3, 3, padding=1)).eval()
    supernet = gantailor.Supernet(model, (torch.randn(1, 3, 16, 16),))
    space = gantailor.space(SpaceConfig(fractions=(0.25, 0.5, 0.75, 1)), supernet)
    metric = EvaluationConfig(search="own_metrics:top5[teacher]").search
    evaluator, pairs = scoring(model).evaluator([metric]), Noise(4, 16)

    def score(config):
        return {metric: next(iter(evaluator(supernet.extract(config), pairs).values())).value}

    objectives = (Objective(metric, find_metric(metric).lower_is_better),)
    study = open_study(tmp_path / "j", name="s", objectives=objectives)
    budget = Budget(space, int(space.macs(space.largest)[0]), fill=False)
    search = Search(study, budget, score, objectives=objectives, strategy="random", start=2)
    search.run(4)
    assert len(table(study)) == 4
    assert study.best_value == pytest.approx(1) == table(study)[metric].max()  # the whole teacher


@pytest.mark.parametrize(
    ("score", "metric"),
    [
        ("l1", "l1"),
        ("l1[teacher]", "l1"),
        ("fid[efficientnet-lite0]", "fid"),
        ("fid768[inception-2015-12-05]", "fid"),
        ("precision64[inception-2015-12-05]", "precision"),
        ("lpips[alex-v0.1,teacher]", "lpips"),
        ("bytes[int8]", "bytes"),
        ("latency_p95_ms[torch-cpu]", "latency_p95_ms"),
        ("own_metrics:top5[teacher]", "own_metrics:top5"),
        ("own_metrics:l12", "own_metrics:l12"),
        ("own_metrics:early[net]", "own_metrics:early"),
        ("own_metrics:early16[net]", "own_metrics:early"),
    ],
)
def test_metric_of_a_score(own, score, metric):
    assert metric_of(score) == find_metric(metric)


def test_digits_are_no_variant():
    assert not find_metric("l1").names("l12")
    assert not find_metric("fid").names("fid512[inception-2015-12-05]")
    for unknown in ("l12", "fid512[x]", "psnr2"):
        with pytest.raises(ConfigError, match="unknown"):
            metric_of(unknown)


def test_variants_of_ones_own(own):
    scores = scoring().evaluator(["own_metrics:early"])(nn.Identity(), Noise(2))
    assert list(scores) == [f"own_metrics:early{layer}[net]" for layer in ("", "2", "16")]
    assert {metric_of(key) for key in scores} == {find_metric("own_metrics:early")}
    with pytest.raises(ConfigError, match="'own_metrics:early3' cannot be imported"):
        metric_of("own_metrics:early3[net]")


def test_extractor_variants_are_scored():
    small = ChannelMeans()
    small.name, small.variant = "inception-2015-12-05", "768"
    names = ["precision", "fid"]
    scores = Scoring(EvaluationConfig(), extractor=small).evaluator(names)(nn.AvgPool2d(3, 1, 1), Noise())
    assert {key: score.lower_is_better for key, score in scores.items()} == {
        "precision768[inception-2015-12-05]": False,
        "fid768[inception-2015-12-05]": True,
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lipps", "did you mean 'lpips'.*or 'module:name'"),
        ("own_metrics:none", "metric 'own_metrics:none' cannot be imported"),
        ("no_such_module:top5", "metric 'no_such_module:top5' cannot be imported"),
        ("own_metrics:bare", "'own_metrics:bare' is a function, but a Metric record is expected: .*lower_is_better"),
        ("own_metrics:bare[teacher]", "'own_metrics:bare' is a function"),
        ("own_metrics:l12[teacher]", r"cannot be compared with a teacher here; ask for 'own_metrics:l12'"),
        ("fid[teacher]", "ask for 'fid'"),
        ("lpips", r"'lpips' needs evaluation.lpips_features \(AlexNet.* and evaluation.lpips_heads \("),
        ("miou", r"'miou' needs evaluation.segmentation \(.* and evaluation.segmentation_weights"),
    ],
)
def test_mistakes(own, name, message):
    with pytest.raises(ConfigError, match=message) as caught:
        scoring().evaluator(["l1", name])
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_extractor_is_told_first():
    config = EvaluationConfig(extractor="inception-2015-12-05@768")
    with pytest.raises(ConfigError, match="needs --weights FILE"):
        Scoring(config).evaluator(["l1", "fid"])


RECORD = {"name": "x", "unit": "y", "lower_is_better": True, "compares": "outputs", "make": lambda context: None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a:b"}, "a metric's name cannot be 'a:b'"),
        ({"unit": ""}, "has no unit"),
        ({"lower_is_better": None}, "lower_is_better None; say True or False"),
        ({"compares": "folders"}, "compares 'folders'; allowed are sets, pictures"),
        ({"needs": ("weihgts",)}, "needs 'weihgts', which is no setting"),
    ],
)
def test_records_are_checked(change, message):
    with pytest.raises(ConfigError, match=message):
        Metric(**RECORD | change)


def test_a_direction_cannot_be_forgotten(own):
    (own / "forgetful.py").write_text(
        "from gantailor.evaluators.metric import Metric\n"
        "late = Metric(name='late', unit='ms', compares='generator', make=print)\n"
    )
    with pytest.raises(ConfigError, match=r"'forgetful:late' cannot be imported: .*'lower_is_better'"):
        find_metric("forgetful:late")


@pytest.mark.parametrize(("given", "message"), [({}, "given: none"), ({"other": 1.0}, "given: other")])
def test_no_score_of_the_metric_is_an_error(own, given, message):
    (own / "silent.py").write_text(
        "from gantailor.evaluators.metric import Metric\n"
        f"def make(context):\n    return lambda generator, pairs: {given}\n"
        "mute = Metric(name='mute', unit='share', lower_is_better=False, compares='outputs', make=make)\n"
    )
    with pytest.raises(EvaluationError, match=f"'silent:mute' got no score for 10 pictures.*{message}"):
        scoring().evaluator(["silent:mute"])(nn.Identity(), Noise())
    sys.modules.pop("silent")


def test_a_figure_that_is_not_finite_is_an_error():
    with pytest.raises(EvaluationError, match="'l1' is nan, not a finite number"):
        find_metric("l1").score(float("nan"), {})


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("search", "lipps", "did you mean 'lpips'"),
        ("final", ("l1", "fidd[teacher]"), "metric 'fidd' is unknown"),
        ("extractor", "vgg", "extractor 'vgg' is unknown; allowed are efficientnet-lite0"),
        ("segmentation", "mynet", "allowed is module:function"),
    ],
)
def test_settings_are_checked_without_importing_anything(setting, value, message):
    with pytest.raises(ValueError, match=message):
        EvaluationConfig(**{setting: value})
    assert EvaluationConfig(search="nowhere:metric[teacher]").search == "nowhere:metric[teacher]"


def test_names_are_known_without_torch(tmp_path):
    """The command line and the settings show them in milliseconds."""
    code = (
        "import sys; from gantailor.evaluators.config import EvaluationConfig; EvaluationConfig(search='a:b');"
        "print(*{'torch', 'numpy', 'scipy', 'torchmetrics'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == ""


def test_conformance_notices_a_wrong_direction(own, monkeypatch):
    """What a search would follow to the worst generator."""
    right = find_metric("own_metrics:top5")
    monkeypatch.setattr(sys.modules["own_metrics"], "top5", replace(right, lower_is_better=True))
    with pytest.raises(AssertionError, match="own_metrics:top5"):
        TestOwn().test_better_is_better()


@pytest.mark.long
def test_evaluate_prints_ones_own(own, tmp_path, capsys):
    """From the command line: of a generator, and of two folders."""
    torch.manual_seed(0)
    command = ["evaluate", "--split", "search", "--json", "--metrics"]
    assert main([*command, "own_metrics:top5,own_metrics:l12,l1"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert list(scores) == ["own_metrics:top5", "own_metrics:l12", "l1"]
    assert scores["own_metrics:l12"]["value"] > 0 and scores["own_metrics:top5"]["unit"] == "share"
    assert main([*command, "own_metrics:l12[teacher]"]) == 2
    assert "would compare the checkpoint with itself" in capsys.readouterr().err
    for folder, value in (("a", 0), ("b", 255)):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (8, 8), (value,) * 3).save(tmp_path / folder / "1.png")
    folders = ["--images", "a", "--reference", "b", "--metrics"]
    assert main(["evaluate", "--json", *folders, "own_metrics:l12"]) == 0
    assert json.loads(capsys.readouterr().out)["own_metrics:l12"]["value"] == pytest.approx(2)
    assert main(["evaluate", *folders, "macs"]) == 2
    assert "metric 'macs' is unknown for folders; allowed are fid, kid" in capsys.readouterr().err
    assert main([*command, "own_metrics:bare"]) == 2
    assert "a Metric record is expected" in capsys.readouterr().err


class Few(Noise):
    """So many pictures of this size and channels, random or all of one grey."""

    def __init__(self, count, sides, channels, *, constant):
        shape, random = (count, channels, *sides), torch.Generator().manual_seed(0)
        self.inputs, self.targets = (as_seen(torch.rand(shape, generator=random) * 2 - 1) for _ in range(2))
        if constant:
            self.inputs, self.targets = torch.zeros(shape), torch.zeros(shape)


def scored(name, config, pairs):
    """Values of a metric, or what it says in their place."""
    try:
        return [score.value for score in Scoring(config).evaluator([name])(nn.Tanh(), pairs).values()], ""
    except EvaluationError as error:
        return [], str(error)


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("sides", [(1, 1), (8, 8), (10, 32), (11, 11)])
@pytest.mark.parametrize("count", [1, 2])
def test_few_and_small_pictures_have_a_value_or_one_line(count, sides, channels, constant):
    """Of every metric that needs no files."""
    pairs, config = Few(count, sides, channels, constant=constant), EvaluationConfig()
    for name in METRICS:
        if find_metric(name).needs or name.startswith(("latency", "macs")):  # slow, and of the generator alone
            continue
        values, said = scored(name, config, pairs)
        if name in ("l1", "psnr", "ssim"):
            assert bool(values) == (name != "ssim" or min(sides) >= 11), name
        assert all(math.isfinite(value) for value in values), name
        assert values or ("\n" not in said and ("SSIM compares windows" in said or "images" in said)), (name, said)


def test_structural_similarity_of_pictures_without_a_window_is_one_line():
    pairs = Few(2, (8, 20), 3, constant=False)
    with pytest.raises(
        EvaluationError, match=r"^SSIM compares windows of 11 x 11 pixels, pictures of 8 x 20 have none"
    ):
        Scoring(EvaluationConfig()).evaluator(["l1", "ssim"])(nn.Identity(), pairs)
    scores = Scoring(EvaluationConfig()).evaluator(["l1", "psnr"])(nn.Identity(), pairs)
    assert scores["l1"].value == pytest.approx(float((pairs.inputs - pairs.targets).abs().mean()), rel=1e-6)
