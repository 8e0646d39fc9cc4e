"""The model card: what it says, what the hub reads of it, and that one that somebody edited stays."""

import re

import pytest
import torch
import yaml

import gantailor
from gantailor.handover.card import card, metadata, write_card

SHA = "ab" * 32


def score(value, *, lower=True):
    return {"value": value, "unit": "of the range [-1, 1]", "lower_is_better": lower}


@pytest.fixture
def manifest():
    end = {"name": "input", "shape": [1, 3, 16, 16], "layout": "NCHW", "kind": "pictures", "range": [-1, 1]}
    teacher = {"generator": "resnet_9blocks", "file": "latest_net_G.pth", "sha256": SHA}
    data = {"kind": "folder", "licence": "CC BY 4.0", "digests": {"train": "aa", "test": "bb"}}
    ms = {"subnet": 2.0, "teacher": 8.0}
    return {
        "inputs": [end],
        "outputs": [{**end, "name": "output"}],
        "licence": "CC BY-SA 4.0",
        "provenance": {"gantailor": "1.2", "torch": "2.13", "teacher": teacher, "data": data, "subnet": SHA},
        "generator": "resnet_6blocks",
        "config": {"body": 4},
        "macs": {"true": 10**8, "published": 11 * 10**7},
        "teacher_macs": {"true": 10**9, "published": 11 * 10**8},
        "parameters": 5000,
        "teacher_parameters": 40000,
        "scores": {
            "teacher": {"fid[inception]": score(20.0)},
            "subnet": {"fid[inception]": score(25.5), "psnr": score(19.0, lower=False)},
        },
        "sha256": {"model.safetensors": SHA},
        "devices": {
            "phone": {"runtime": "onnxruntime", "precision": "float32", "file": "model.onnx", "latency_ms": ms},
        },
    }


def test_what_a_card_says(manifest):
    text = card(manifest, {"method": "slimming"})
    for line in (
        "# Narrow resnet_6blocks, 10x fewer MACs",
        "cut to 10.0% of the multiply-accumulates of its teacher `latest_net_G.pth`",
        "| MACs | 1G | 100M | 10x |",
        "| parameters | 40K | 5K | 8x |",
        "| ms, phone | 8 | 2 | 4x |",
        "| fid\\[inception\\] ↓ | 25.5 | 20 | of the range \\[-1, 1\\] |",
        "| psnr ↑ | 19 |  | of the range \\[-1, 1\\] |",
        'generator = gantailor.load("model.safetensors")',
        f"| `model.safetensors` | `{SHA}` |",
        "- method: `slimming`",
        f"- teacher: `latest_net_G.pth`, a `resnet_9blocks`, sha256 `{SHA}`",
        "- data: `folder`, licence CC BY 4.0; digests train `aa`, test `bb`",
    ):
        assert line in text, line


def test_what_the_hub_reads(manifest):
    hub = pytest.importorskip("huggingface_hub")
    found = hub.ModelCard(card(manifest, {})).data
    assert (found.library_name, found.license, found.pipeline_tag) == ("gantailor", "cc-by-sa-4.0", "image-to-image")
    assert {"gan", "onnx", "resnet_6blocks"} <= set(found.tags) and found.metrics == ["fid", "psnr"]
    first = found.eval_results[0]
    assert (first.metric_type, first.metric_name, first.metric_value) == ("fid", "fid[inception]", 25.5)
    assert (first.task_type, first.dataset_revision) == ("image-to-image", "bb")


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("MIT", {"license": "mit"}),
        ("Apache 2.0", {"license": "apache-2.0"}),
        ("for the lab only: #1", {"license": "other", "license_name": "for the lab only: #1"}),
        (None, {}),
    ],
)
def test_licences(manifest, said, written):
    front = yaml.safe_load(card({**manifest, "licence": said}, {}).split("---")[1])
    assert {name: value for name, value in front.items() if name.startswith("license")} == written


def test_of_a_generator_from_latents(manifest):
    manifest["inputs"] = [{"name": "z", "shape": [1, 64], "layout": "NC", "kind": "latents", "range": None}]
    assert metadata(manifest)["pipeline_tag"] == "unconditional-image-generation"
    assert "x = torch.zeros((1, 64))  # latents, NC, any values" in card(manifest, {})


def test_what_is_not_known_is_left_out(manifest):
    for name in ("scores", "teacher_parameters", "macs", "teacher_macs", "licence"):
        del manifest[name]
    manifest["provenance"] = {"gantailor": "1.2", "torch": "2.13", "teacher": None}
    text = card(manifest, {})
    assert "Scores" not in text and "| parameters |  | 5K |  |" in text and "None" not in text
    assert "model-index" not in metadata(manifest)


def test_anybodys_words_stay_words(manifest):
    evil = "a`b|c\n# <img src=x>\n---"
    manifest |= {"generator": evil, "licence": evil, "scores": {"subnet": {evil: {**score(1.0), "unit": evil}}}}
    manifest["provenance"]["teacher"]["file"] = evil
    text = card(manifest, {"method": evil})
    body = text.split("\n---\n", 1)[1]
    assert "\n# <img" not in body and "\n---" not in body and yaml.safe_load(text.split("\n---\n")[0][4:])
    assert not re.search(r"(?<![\\`\w])<img", re.sub(r"(?<!\\)`[^`]*`", "", body))


def test_one_that_was_edited_stays(manifest, tmp_path):
    file = tmp_path / "README.md"
    assert write_card(tmp_path, manifest, {}) and write_card(tmp_path, {**manifest, "parameters": 7}, {})
    assert "| 7 |" in file.read_text()
    file.write_text(file.read_text().replace("A GAN generator", "My generator"))
    assert not write_card(tmp_path, manifest, {}) and "My generator" in file.read_text()
    file.write_bytes(b"\xff")
    assert not write_card(tmp_path, manifest, {})


@pytest.mark.long
def test_beside_an_export_from_python(tmp_path):
    torch.manual_seed(0)
    narrow = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.Tanh())
    gantailor.export(narrow, tmp_path / "out", example_inputs=torch.rand(1, 3, 8, 8), licence="MIT")
    text = (tmp_path / "out/README.md").read_text()
    assert "license: mit" in text and "onnxruntime-cpu" in text and "gantailor.load" not in text
