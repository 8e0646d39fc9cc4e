"""Methods of compression from one YAML file to an exported generator."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

import gantailor
from gantailor.cli.main import main
from gantailor.run.loading import load_config
from gantailor.run.run import Run, open_run
from gantailor.search.methods import METHODS
from gantailor.search.methods.slimming.task import Slimmed
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.files import load_tensors
from gantailor.supernet.training.presets import PRESETS


@pytest.fixture(scope="module")
def stylegan2(tmp_path_factory):
    """Weights of a tiny StyleGAN2 at 32 px."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("stylegan2") / "g.pt"
    net = gantailor.build("stylegan2", size=32, style_dim=8, n_mlp=2, channels={4: 8, 8: 8, 16: 8, 32: 6})
    torch.save({"g_ema": net.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def common(tmp_path_factory, stylegan2):
    """What every configuration here begins with: that generator, and a few pictures."""
    folder = tmp_path_factory.mktemp("pictures") / "train"
    folder.mkdir()
    pictures = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{number}.png")
    data = f"{{kind: folder, path: {folder.parent}, direction: unpaired, size: 32}}"
    return f"generator: stylegan2\nteacher: {stylegan2}\ndata: {data}\n"


@pytest.fixture(scope="module")
def pruned(tmp_path_factory, common):
    """A ranking made by the command, and a whole run of ``method: diversity`` on it."""
    folder = tmp_path_factory.mktemp("diversity")
    yaml = folder / "config.yaml"
    yaml.write_text(common)
    assert main(["rank", str(yaml), "--criterion", "diversity", "--inputs", "10", "--out", str(folder)]) == 0
    yaml.write_text(
        f"{common}method: diversity\nranking: {folder}/diversity.json\nbudget: 0.3x\n"
        "finetune: {kimg: 0.02, batch: 4}\nevaluation: {final: [fid, recall, l1]}\n"
        "devices: [onnxruntime-cpu, onnxruntime-cpu-int8]\n"
    )
    assert main(["compress", str(yaml), "--out", str(folder / "run")]) == 0
    return folder


@pytest.mark.long
def test_diversity_end_to_end(pruned):
    run = open_run(pruned / "run")
    config, narrow = run.subnet()
    shares = {name: size / run.setup.supernet.full_config()[name] for name, size in config.items()}
    assert max(shares.values()) - min(shares.values()) < 0.2, "the same share of every width"
    assert run.setup.supernet.macs(config) <= run.setup.budget.macs
    session = onnxruntime.InferenceSession(str(pruned / "run" / "export" / "onnxruntime-cpu" / "model.onnx"))
    z = torch.randn(1, 8)
    (made,) = session.run(None, {session.get_inputs()[0].name: z.numpy()})
    assert made.shape == (1, 3, 32, 32)
    np.testing.assert_allclose(made, narrow(z).detach().numpy(), atol=1e-4)
    scores = json.loads((pruned / "run" / "scores.json").read_text())
    assert set(scores["subnet"]) == {"fid[efficientnet-lite0]", "recall[efficientnet-lite0]", "l1[teacher]"}
    assert "l1[teacher]" not in scores.get("teacher", {}) and "input" not in scores
    assert "data:image/png" in (pruned / "run" / "report.html").read_text()


@pytest.mark.long
def test_most_important_channels_stay(pruned, stylegan2):
    """The supernet's leading channels are the teacher's best by the ranking file."""
    ranking = json.loads((pruned / "diversity.json").read_text())
    assert ranking["criterion"] == "diversity" and len(ranking["weights"]) == 12
    weights, _ = load_tensors(pruned / "run" / "supernet.safetensors")
    order = np.argsort(-np.array(ranking["scores"]["conv1.conv"]), kind="stable")
    teacher = torch.load(stylegan2, weights_only=True)["g_ema"]["conv1.activate.bias"]
    assert torch.equal(weights["conv1.activate.bias"], teacher[torch.from_numpy(order)])
    assert (pruned / "run" / "ranking.json").exists() and (pruned / "diversity.png").stat().st_size > 1000


@pytest.mark.long
def test_searched_widths(pruned, common, tmp_path):
    """The same ranking under the search: a supernet is trained, then widths are searched."""
    yaml = tmp_path / "config.yaml"
    yaml.write_text(
        f"{common}method: diversity\nspace: default\n"
        f"ranking: {pruned}/diversity.json\nbudget: 0.5x\ntrain: {{kimg: 0.02, batch: 4}}\nsearch: {{trials: 3}}\n"
        "evaluation: {search_images: 8}\n"
    )
    assert main(["search", str(yaml), "--out", str(tmp_path / "run")]) == 0
    run = Run(tmp_path / "run", load_config(str(yaml), {}))
    assert run.setup.search_metric == "features[teacher]"
    config, _ = run.subnet()
    assert run.setup.supernet.macs(config) <= run.setup.budget.macs
    trained, _ = load_tensors(tmp_path / "run" / "supernet.safetensors")
    untrained, _ = load_tensors(pruned / "run" / "supernet.safetensors")
    assert any(not torch.equal(trained[name], untrained[name]) for name in trained)


def sparse(folder, pairs, method, more="", *, method_options="{}"):
    """A whole run of a method that sparsifies; its YAML file and its folder."""
    yaml = folder / "config.yaml"
    yaml.write_text(
        f"options: {{ngf: 8}}\ndata: {{kind: folder, path: {pairs}, size: 32}}\nmethod: {method}\nbudget: 0.3x\n"
        f"train: {{kimg: 0.08, batch: 4, ndf: 4, method_options: {method_options}}}\n"
        f"finetune: {{kimg: 0.04, batch: 4, ndf: 4}}\nevaluation: {{final: [l1], search_images: 4}}\n{more}"
    )
    assert main(["compress", str(yaml), "--out", str(folder / "run")]) == 0
    return yaml, folder / "run"


@pytest.fixture(scope="module")
def slimmed(tmp_path_factory, tiny_teacher, pairs):
    """A whole run of ``method: slimming`` with a ResNet."""
    return sparse(tmp_path_factory.mktemp("slimming"), pairs, "slimming", f"teacher: {tiny_teacher}\n")


def used(run):
    """The share of the generator's MACs that the subnet needs."""
    return run.setup.supernet.macs(run.subnet()[0]) / run.setup.supernet.macs(run.setup.supernet.full_config())


@pytest.mark.long
def test_slimming_end_to_end(slimmed):
    _, folder = slimmed
    run = open_run(folder)
    assert 0.294 <= used(run) <= 0.3
    manifest = json.loads((folder / "export" / "manifest.json").read_text())
    whole, small = (manifest["devices"][name] for name in ("onnxruntime-cpu", "onnxruntime-cpu-int8"))
    assert small["psnr_to_simulated"] > 40 and small["delegated"].startswith("ranges of the training")
    assert whole["max_difference"] < 1e-4
    scores = json.loads((folder / "scores.json").read_text())
    assert {"teacher", "subnet", "subnet, 8 bits simulated"} <= set(scores)
    simulated = scores["subnet, 8 bits simulated"]["l1"]["value"]
    assert small["scores"]["subnet, exported"]["l1"]["value"] == pytest.approx(simulated, rel=0.01)
    assert "slimming" in (folder / "front.csv").read_text()


@pytest.mark.slow
def test_a_block_may_vanish(tmp_path, tiny_teacher, pairs, capsys, monkeypatch):
    """The one whose scales are smallest does, if that is allowed; the 8-bit file computes what training simulated."""
    begin = Slimmed._move_norms_into_scales

    def with_a_weak_block(slimmed):
        begin(slimmed)
        slimmed.gates.values.data[slimmed.gates.places.starts[5] :][:32] *= 0.01

    monkeypatch.setattr(Slimmed, "_move_norms_into_scales", with_a_weak_block)
    more = f"teacher: {tiny_teacher}\nspace: {{drop_branches: true}}\n"
    yaml, folder = sparse(tmp_path, pairs, "slimming", more, method_options="{scale_lr: 0.0001}")
    run = open_run(folder)
    config, subnet = run.subnet()
    assert [config[f"model.{block}.conv_block.1"] > 0 for block in range(10, 16)] == [True, True, False, *[True] * 3]
    assert not hasattr(subnet.get_submodule("model.12.conv_block.5"), "weight")
    assert 0.294 <= used(run) <= 0.3
    small = json.loads((folder / "export" / "manifest.json").read_text())["devices"]["onnxruntime-cpu-int8"]
    assert small["psnr_to_simulated"] > 40
    assert main(["compress", str(yaml), "--out", str(tmp_path / "other"), "--method", "agents"]) == 2
    assert "leave out space.drop_branches" in capsys.readouterr().err


@pytest.mark.slow
def test_pictures_without_targets(tmp_path, tiny_teacher, capsys):
    """Photographs alone: the teacher's outputs are the targets; scores of sets are left out, and it is said."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for number in range(6):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / split / f"{number}.png")
    yaml = tmp_path / "config.yaml"
    yaml.write_text(
        f"options: {{ngf: 8}}\nteacher: {tiny_teacher}\nmethod: slimming\nbudget: 0.3x\n"
        f"data: {{kind: folder, path: {tmp_path}, size: 32, direction: unpaired}}\n"
        "train: {kimg: 0.04, batch: 4, ndf: 4}\nfinetune: {kimg: 0.02, batch: 4, ndf: 4}\n"
        "evaluation: {final: [l1, fid], search_images: 4}\n"
    )
    assert main(["compress", str(yaml), "--out", str(tmp_path / "run")]) == 0
    assert "scores without fid: the data has no real pictures" in capsys.readouterr().err
    assert set(json.loads((tmp_path / "run" / "scores.json").read_text())["subnet"]) == {"l1[teacher]"}


@pytest.mark.long
def test_slimming_goes_on_where_it_was(slimmed):
    """A finished run is finished; what is deleted is made again from what is left, and comes out the same."""
    yaml, folder = slimmed
    before = (folder / "subnet.json").read_bytes()
    (folder / "subnet.json").unlink()
    assert main(["compress", str(yaml), "--out", str(folder)]) == 0
    assert (folder / "subnet.json").read_bytes() == before


@pytest.mark.long
def test_hypernetwork_end_to_end(tmp_path, pairs):
    """No teacher anywhere: not in training, not in the scores, not on the page."""
    _, folder = sparse(tmp_path, pairs, "hypernetwork")
    run = open_run(folder)
    assert 0.294 <= used(run) <= 0.3
    assert set(json.loads((folder / "scores.json").read_text())) <= {"input", "subnet", "subnet, last step"}
    page = (folder / "report.html").read_text()
    assert 'alt="teacher"' not in page and 'alt="real"' in page
    assert "whole generator" in page and ">teacher<" not in page
    losses = [json.loads(line) for line in (folder / "supernet.ckpt.jsonl").read_text().splitlines()]
    assert "output" not in losses[0] and any("cost (target 0.3)" in name for name in losses[-1])


def save_domains(folder):
    """Pictures of two domains, of noise."""
    rng = np.random.default_rng(0)
    for split in ("trainA", "trainB", "testA", "testB"):
        (folder / split).mkdir()
        for number in range(6 if split.endswith("A") else 8):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / split / f"{number}.png")


@pytest.mark.slow
def test_both_generators_of_a_cyclegan(tmp_path):
    """Two hypernetworks, each with its own latents and budget; two narrow generators."""
    save_domains(tmp_path)
    yaml, cycle = tmp_path / "config.yaml", "{preset: teacher-cyclegan, batch: 2, ndf: 4, kimg: 0.04}"
    yaml.write_text(
        f"options: {{ngf: 8}}\ndata: {{kind: domains, path: {tmp_path}, size: 32}}\nmethod: hypernetwork\n"
        f"budget: 0.4x\ntrain: {cycle}\nfinetune: {cycle}\nevaluation: {{final: [fid, kid]}}\n"
    )
    out = tmp_path / "run"
    assert main(["compress", str(yaml), "--out", str(out)]) == 0
    run = open_run(out)
    back = json.loads((out / "BtoA.json").read_text())
    full = run.setup.supernet.macs(run.setup.supernet.full_config())
    assert 0.39 <= used(run) <= 0.4 and 0.39 <= run.setup.supernet.macs(back) / full <= 0.4
    weights, _ = load_tensors(out / "subnet_BtoA.safetensors")
    assert weights["model.1.weight"].shape[0] == back["model.1"]
    assert run.setup.data("test").digest() != run.setup.data("search").digest() and len(run.setup.data("test")) == 6
    scores = json.loads((out / "scores.json").read_text())["subnet"]
    assert set(scores) == {"fid[efficientnet-lite0]", "kid[efficientnet-lite0]"}
    losses = json.loads((out / "supernet.ckpt.jsonl").read_text().splitlines()[-1])
    assert {"latents cost (target 0.4)", "latents back cost (target 0.4)"} <= set(losses)


@pytest.mark.long
def test_agents_end_to_end(tmp_path, tiny_teacher, pairs, capsys):
    """Both networks narrow, and fine-tuned together: the discriminator's checkpoint has its narrow widths."""
    options = "train: {method_options: {discriminator_kimg: 0.02, neighbours: 2}, kimg: 0.08, batch: 4, ndf: 16}"
    yaml = tmp_path / "config.yaml"
    yaml.write_text(
        f"options: {{ngf: 8}}\nteacher: {tiny_teacher}\ndata: {{kind: folder, path: {pairs}, size: 32}}\n"
        f"method: agents\nbudget: 0.3x\n{options}\nfinetune: {{kimg: 0.04, batch: 4, ndf: 16}}\n"
        "evaluation: {final: [l1], search_images: 4}\n"
    )
    out = tmp_path / "run"
    assert main(["compress", str(yaml), "--out", str(out)]) == 0
    said = capsys.readouterr().err
    assert "generator: " in said and "discriminator: " in said and "target 0.3" in said
    run = open_run(out)
    assert 0.29 <= used(run) <= 0.3
    sizes = json.loads((out / "discriminator.json").read_text())
    state, _ = load_tensors(out / "subnet.ckpt.safetensors")
    assert state["discriminator.model.0.weight"].shape[0] == sizes["model.0"] < 16
    assert "output" not in json.loads((out / "subnet.ckpt.jsonl").read_text().splitlines()[-1]), "the original losses"
    yaml.write_text(yaml.read_text().replace("finetune: {kimg: 0.04, batch: 4, ndf: 16}", "finetune: {ndf: 8}"))
    assert main(["compress", str(yaml), "--out", str(tmp_path / "other")]) == 2
    assert "make ndf the same in train and finetune" in capsys.readouterr().err


@pytest.mark.slow
def test_agents_on_a_cyclegan(tmp_path, capsys):
    """A translator from its teacher's training, a discriminator trained on B, fine-tuned by CycleGAN's own losses."""
    save_domains(tmp_path)
    yaml, cycle = tmp_path / "config.yaml", "{preset: teacher-cyclegan, batch: 2, ndf: 8, kimg: 0.008}"
    data = f"generator: resnet_6blocks\noptions: {{ngf: 8}}\ndata: {{kind: domains, path: {tmp_path}, size: 32}}\n"
    taught, flags = tmp_path / "taught", ["--data.kind", "domains", "--data.path", str(tmp_path), "--data.size", "32"]
    flags += ["--generator", "resnet_6blocks", "--options", "{ngf: 8}", "--train.preset", "teacher-cyclegan"]
    flags += ["--train.batch", "2", "--train.ndf", "8", "--train.kimg", "0.008"]
    assert main(["teacher", *flags, "--out", str(taught)]) == 0
    search = (
        "{preset: cyclegan, batch: 2, ndf: 8, kimg: 0.04, method_options: {discriminator_kimg: 0.01, neighbours: 2}}"
    )
    yaml.write_text(
        f"{data}teacher: {taught / 'teacher.safetensors'}\nmethod: agents\nbudget: 0.4x\ntrain: {search}\n"
        f"finetune: {cycle}\nevaluation: {{final: [fid]}}\n"
    )
    out = tmp_path / "run"
    assert main(["compress", str(yaml), "--out", str(out)]) == 0
    said = capsys.readouterr().err
    assert f"BtoA: from {taught / 'teacher_BtoA.safetensors'}" in said
    assert f"discriminator_A: from {taught / 'discriminator_A.safetensors'}" in said
    assert "of the kept channels are those that the start's order would have kept (chance" in said
    assert 0.39 <= used(open_run(out)) <= 0.4
    losses = json.loads((out / "subnet.ckpt.jsonl").read_text().splitlines()[-1])
    assert {"gan_a", "gan_b", "cycle_a", "cycle_b", "identity_a", "identity_b"} <= set(
        losses
    ) and "output" not in losses
    state, _ = load_tensors(out / "subnet.ckpt.safetensors")
    sizes = json.loads((out / "discriminator.json").read_text())
    assert (
        state["judges.b.model.0.weight"].shape[0] == sizes["model.0"] < 8 == state["judges.a.model.0.weight"].shape[0]
    )
    assert state["back.model.1.weight"].shape[0] == 8, "the translator back stays whole"
    searched, _ = load_tensors(out / "supernet.ckpt.safetensors")
    assert any(name.startswith("projection.") for name in searched)
    yaml.write_text(yaml.read_text().replace("{preset: ", "{conditional: true, preset: "))
    assert main(["compress", str(yaml), "--out", str(tmp_path / "other")]) == 2
    assert "train.conditional and finetune.conditional to false" in capsys.readouterr().err


def test_pictures_can_be_ranked_too(tiny_teacher, tmp_path):
    yaml = tmp_path / "config.yaml"
    yaml.write_text(f"generator: resnet_6blocks\noptions: {{ngf: 8}}\nteacher: {tiny_teacher}\ndata: {{size: 32}}\n")
    assert main(["rank", str(yaml), "--inputs", "5", "--out", str(tmp_path)]) == 0
    scores = json.loads((tmp_path / "diversity.json").read_text())["scores"]
    assert all(max(values) > 0 for values in scores.values())


def test_scores_do_not_go_into_a_run_that_was_not_named(tiny_teacher, capsys):
    flags = ["--generator", "resnet_6blocks", "--options", "{ngf: 8}", "--teacher", str(tiny_teacher)]
    assert main(["rank", *flags, "--criterion", "l1", "--dry-run"]) == 0
    assert "would score every channel by l1, and write runs/ranking/l1.json" in capsys.readouterr().out


def test_methods_fill_in_what_the_user_leaves_out():
    plain = load_config(None, {})
    assert plain.ranking == "l1" and plain.space.name == "path"
    pruning = load_config(None, {"method": "diversity", "train.kimg": 3})
    assert (pruning.ranking, pruning.space.name, pruning.train.kimg) == ("diversity", "uniform", 3)
    assert pruning.train.output_weight == plain.train.output_weight
    latents = load_config(None, {"generator": "stylegan2", "method": "diversity", "finetune.kimg": 2})
    assert (
        latents.finetune.preset == "stylekd" and latents.finetune.kimg == 2 and latents.finetune.perceptual_weight == 0
    )
    given = {"evaluation.lpips_features": "a", "evaluation.lpips_heads": "b", "generator": "stylegan2"}
    assert load_config(None, given).finetune.perceptual_weight == 3
    options = load_config(None, {"generator": "stylegan2", "finetune.task_options": {"r1": 3}}).finetune.task_options
    assert options == {"r1": 3, "augment": 1}, "leaf by leaf"
    faces = {"generator": "stylegan2", "data.kind": "folder", "data.path": "faces"}
    assert (
        load_config(None, faces).finetune.task_options == {} and load_config(None, faces).data.direction == "unpaired"
    )
    searched = load_config(None, {"method": "diversity", "space": "default"})
    assert searched.search.trials > 1 and searched.train.kimg > 0
    for method in METHODS:
        stored = load_config(None, {"method": method}).model_dump(mode="json")
        assert load_config(None, stored).model_dump(mode="json") == stored, "a run's own configuration is a fixed point"


@pytest.mark.parametrize("preset", ["teacher-stylegan2", "teacher-stylegan2-openmoji", "stylekd"])
def test_a_named_preset_wins(preset):
    """What makes the method stays, the rest is the preset's."""
    recipe = load_config(None, {"generator": "stylegan2", "train.preset": preset}).train
    wanted = {name: value for name, value in PRESETS[preset].items() if name != "perceptual_weight"}
    assert {name: getattr(recipe, name) for name in wanted} == wanted
    for method, kept in (("slimming", {"bits": 8}), ("hypernetwork", {"output_weight": 0, "feature_weight": 0})):
        recipe = load_config(None, {"method": method, "train.preset": "cyclegan"}).train
        assert recipe.kimg == PRESETS["cyclegan"]["kimg"] and {name: getattr(recipe, name) for name in kept} == kept
    assert load_config(None, {"method": "diversity", "train.preset": "pix2pix"}).train.kimg > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("space: {multiple: 8}", "keeps any number of channels"),
        ("round_to_device: true", "keeps any number of channels"),
        ("method: diversity\nsearch: {trials: 24}", "scores of untrained subnets say nothing"),
        ("budget: 'macs>=1M'", "takes upper limits only"),
        ("train: {method_options: {strenght: 1}}", "the method has no option 'strenght'; did you mean 'strength'"),
        ("method: hypernetwork\ntrain: {preset: teacher-cyclegan}", "must both be a cyclegan"),
        ("train: {preset: teacher-cyclegan}", "'slimming' has no train.task 'cyclegan'"),
        ("method: agents\nfinetune: {preset: teacher-munit}", "'agents' has no finetune.task 'munit'"),
        (
            "train: {method_options: {reach: 2}}",
            "train.method_options.reach cannot be 2; it must be above 0 and at most 1",
        ),
        ("train: {method_options: {scale_lr: 0}}", "scale_lr cannot be 0; it must be above 0"),
        ("method: agents\ntrain: {method_options: {temperature: 0}}", "temperature cannot be 0; it must be above 0"),
        ("budget: 0.05x\ntrain: {method_options: {trunk: 0}}", "1 channel(s) of every width that may lose some"),
        ("method: agents\ntrain: {kimg: 1}", "leaves nothing for the search after 2.0"),
        ("method: agents\nteacher: none", "prunes a trained generator"),
        ("method: agents\ntrain: {method_options: {neighbours: 9}}", "allowed are 1 to 7 with 8 pictures"),
        ("method: agents\ntrain: {method_options: {neighbours: 2.5}}", "give a whole number"),
        (
            "method: agents\ntrain: {discriminator: multiscale}\nfinetune: {discriminator: multiscale}",
            "'multiscale' cannot be pruned",
        ),
        ("method: agents\nbudget: 0.1x", "the budget of the generator cannot be reached: 4 channel"),
    ],
)
def test_sparsifying_says_what_it_cannot(settings, message, tmp_path, tiny_teacher, pairs, capsys):
    yaml = tmp_path / "config.yaml"
    own = "" if "teacher:" in settings else f"teacher: {tiny_teacher}\n"
    method = "" if "method:" in settings else "method: slimming\n"
    yaml.write_text(f"options: {{ngf: 8}}\n{own}data: {{kind: folder, path: {pairs}, size: 32}}\n{method}{settings}\n")
    assert main(["compress", str(yaml), "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_sparsified_widths_may_be_frozen(tmp_path, tiny_teacher, pairs):
    name = (
        gantailor.Supernet(gantailor.build("resnet_6blocks", ngf=8), (torch.randn(1, 3, 32, 32),)).graph.widths[0].name
    )
    _, folder = sparse(
        tmp_path, pairs, "slimming", f"teacher: {tiny_teacher}\nspace: {{name: every, freeze: [{name}]}}\n"
    )
    config, _ = open_run(folder).subnet()
    assert config[name] == 8 and used(open_run(folder)) <= 0.3


@pytest.mark.long
def test_another_budget_is_another_run(slimmed, capsys):
    yaml, folder = slimmed
    assert main(["compress", str(yaml), "--out", str(folder), "--budget", "0.5x"]) == 2
    assert "other settings (budget " in capsys.readouterr().err


@pytest.mark.long
def test_latents_only_for_what_can(common, tmp_path, capsys):
    yaml = tmp_path / "config.yaml"
    yaml.write_text(f"{common}method: slimming\n")
    assert main(["compress", str(yaml), "--out", str(tmp_path / "run")]) == 2
    assert "Use diversity or supernet" in capsys.readouterr().err
    yaml.write_text(common.replace("size: 32", "size: 64"))
    assert main(["compress", str(yaml), "--out", str(tmp_path / "run")]) == 2
    assert "the generator makes 32 px, data.size is 64" in capsys.readouterr().err


@pytest.mark.long
def test_ranking_twice_is_the_same(pruned, common, tmp_path):
    """In the folder of a run, whose channels are in order already, the scores are still the teacher's."""
    yaml = tmp_path / "config.yaml"
    yaml.write_text(common)
    run = pruned / "run"
    assert main(["rank", str(yaml), "--criterion", "l1", "--out", str(run)]) == 0
    assert main(["rank", str(yaml), "--criterion", "l1", "--out", str(tmp_path)]) == 0
    again, fresh = (json.loads((folder / "l1.json").read_text()) for folder in (run, tmp_path))
    assert again == fresh
    fresh["weights"] = "another"
    (tmp_path / "l1.json").write_text(json.dumps(fresh))
    yaml.write_text(f"{common}ranking: {tmp_path}/l1.json\n")
    with pytest.raises(ConfigError, match="is of other weights"):
        _ = Run(tmp_path / "x", load_config(str(yaml), {})).setup.supernet


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"method": "diverse"}, "method 'diverse' is unknown.*did you mean 'diversity'"),
        ({"ranking": "diverse"}, "ranking cannot be 'diverse'.*did you mean 'diversity'"),
        ({"space": "unifrm"}, None),
    ],
)
def test_mistakes(flags, message, tiny_teacher, tmp_path):
    if message is not None:
        with pytest.raises(ConfigError, match=message):
            load_config(None, flags)
        return
    run = Run(
        tmp_path, load_config(None, {**flags, "teacher": str(tiny_teacher), "options": {"ngf": 8}, "data.size": 32})
    )
    with pytest.raises(ConfigError, match="did you mean 'uniform'"):
        _ = run.setup.budget


@pytest.mark.long
def test_a_ranking_of_another_generator(tiny_teacher, pruned, tmp_path):
    flags = {"teacher": str(tiny_teacher), "options": {"ngf": 8}, "data.size": 32}
    with pytest.raises(ConfigError, match="is of another generator"):
        _ = Run(tmp_path, load_config(None, {**flags, "ranking": str(pruned / "diversity.json")})).setup.supernet
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"cannot be read .*a file that gantailor rank wrote"):
        _ = Run(tmp_path, load_config(None, {**flags, "ranking": str(tmp_path / "broken.json")})).setup.supernet
