"""Hypothesis against what is read: a right value or one line. ``benchmarks/fuzz.py`` goes on for hours.

Every property is a function of ``TARGETS``: from a drawn example to nothing, or an ``AssertionError``.
"""

import json
import os
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from gantailor.evaluators.pictures.reader import PictureReader
from gantailor.export.devices import device
from gantailor.run.config import Config
from gantailor.run.folder import RunFolder, read_config
from gantailor.run.loading import names_of_others, own_settings, read_yaml, stored_config
from gantailor.run.run import open_run
from gantailor.search.limits import parse_budget
from gantailor.supernet.errors import GantailorError
from gantailor.supernet.files import read_rows
from gantailor.supernet.received import documents
from gantailor.supernet.received.options import restored, stored
from gantailor.zoo.reading.files import read_file

SECONDS = 3  # that each target may take here
SETTINGS = sorted(Config.model_fields)
ODD = st.sampled_from(
    [float("inf"), float("nan"), -1, 0, 2**63, 1e300, "", "\0", "os:system", "../x", "x" * 500, "é\ud800"]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | ODD
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(SETTINGS) | st.text(max_size=10)
NESTED = st.dictionaries(NAMES, VALUES | st.dictionaries(st.text(max_size=12), VALUES, max_size=3), max_size=4)
SIGNS = "&*!?:-[]{},|>#%@`\"' \n\t"
YAML_BITS = st.sampled_from([*SIGNS, "<<: ", "&a ", "*a", "!!", "seed: ", "train:\n  ", "kimg", "1e9", "~"])
YAML_TEXT = st.lists(YAML_BITS | st.text(max_size=4), max_size=40).map("".join)


def is_a_line(error):
    """What is told of a mistake: not empty, not endless, and a line for each."""
    text = str(error)
    assert text.strip() and len(text) < 20_000, text[:200]


def refused(how, *given):
    """The value, or None where it is refused in a line; anything else that is raised is a bug."""
    try:
        return how(*given)
    except GantailorError as error:
        is_a_line(error)
    except OSError as error:
        is_a_line(error)
    return None


def place(content, name="f"):
    """A file with this content."""
    file = Path(tempfile.mkdtemp()) / name
    file.write_bytes(content)
    return file


def yaml_text(text):
    refused(read_yaml, str(place(text.encode("utf8", "surrogatepass"), "c.yaml")))


def any_bytes(content):
    file = str(place(content, "c.yaml"))
    refused(read_yaml, file), refused(documents.read_json, file), refused(device, file), refused(read_rows, Path(file))


def setting(values):
    found = refused(own_settings, values)
    assert found is None or isinstance(found, dict)


def budget(text):
    limits = refused(lambda: parse_budget(text, full={"macs": 10**9, "params": 10**6}))
    assert limits is None or all(0 <= limit.lower <= limit.upper or limit.lower for limit in limits)


def flag(text):
    refused(documents.parse_yaml, text, "--x")


def run_folder(values):
    """Any JSON as the settings, the trace and the widths of a run; it names no code that is not shown."""
    folder = Path(tempfile.mkdtemp())
    for name in ("config.json", "trace.json", "subnet.json"):
        (folder / name).write_text(json.dumps({str(key): value for key, value in values.items()}, skipkeys=True))
    run = refused(open_run, folder)
    assert run is None or names_of_others(RunFolder(folder).stored_config(), folder) == []
    refused(read_config, folder / "subnet.json"), refused(stored_config, values)


def options(values):
    """From Python to a run folder and back."""
    try:
        plain = restored(values)
    except ValueError:
        return
    again = restored(json.loads(json.dumps(stored(plain))))
    assert yaml.safe_dump(again) == yaml.safe_dump(plain)


def checkpoint(content):
    refused(read_file, place(content, "x.pth")), refused(read_file, place(content, "x.safetensors"))


PNG = Path(tempfile.mkdtemp()) / "whole.png"
Image.new("RGB", (9, 7), (1, 2, 3)).save(PNG)


def picture(changes):
    """A small PNG with other bytes, and cut short."""
    whole = bytearray(PNG.read_bytes())
    for position, value in changes:
        whole[position % len(whole)] = value
    file = place(bytes(whole[: max(1, changes[0][0] % (2 * len(whole)))]) if changes else bytes(whole), "x.png")
    pixels = refused(PictureReader().read, file)
    assert pixels is None or pixels.ndim == 3


TARGETS = {
    yaml_text: YAML_TEXT,
    any_bytes: st.binary(max_size=200),
    setting: NESTED,
    budget: st.text(max_size=30) | st.from_regex(r"(macs|params)?(<=|>=)?[0-9.e]{1,9}[KMGx]?(, ?macs>=[0-9]{1,4}M)?"),
    flag: YAML_TEXT,
    run_folder: NESTED,
    options: st.dictionaries(st.text(max_size=6) | st.integers(), VALUES, max_size=4),
    checkpoint: st.binary(max_size=700)
    | st.binary(max_size=80).map(lambda b: b"\x80\x02" + b)
    | st.just(b"PK\x03\x04"),
    picture: st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), max_size=8),
}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__)
def test_anything(target, tmp_path, monkeypatch):
    import time

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    end = time.monotonic() + SECONDS

    @settings(max_examples=150, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(TARGETS[target])
    def holds(example):
        if time.monotonic() < end:
            target(example)

    holds()
    assert not (tmp_path / "RAN").exists() and os.getcwd() == str(tmp_path)
