"""What a person can give, and what lies in a folder: each is one line and status 2, and nothing hangs."""

import json
import os
import struct
import subprocess
import sys
import zlib

import pytest
from PIL import Image

from gantailor.cli.main import main
from gantailor.supernet.errors import ConfigError, UnreadableError
from gantailor.supernet.plugins import checked_call
from gantailor.supernet.received import documents
from gantailor.supernet.received.options import restored, stored
from gantailor.supernet.received.signature import is_own, mark

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
YAML = {
    "alias bomb": (BOMB, "more than 50,000 values"),
    "alias to itself": ("a: &a [*a]", "inside what it stands for"),
    "alias to nothing": ("a: *b", "for nothing"),
    "merge bomb": ("".join(f"k{i}: &k{i} {{<<: [*k{i - 1}, *k{i - 1}]}}\n" for i in range(1, 60)), "for nothing"),
    "deep": ("[" * 5000 + "]" * 5000, "nested deeper than 64"),
    "deep and open": ("[" * 300_000, "nested deeper than 64"),
    "deep by lines": ("\n".join(" " * i + "- " for i in range(200)) + "a", "nested deeper"),
    "a key twice": ("seed: 1\nseed: 2", "'seed' stands twice in line 2"),
    "a key twice inside": ("data: {size: 32, size: 64}", "'size' stands twice"),
    "no date": ("seed: 2001-99-99", "month must be in 1..12"),
    "no timestamp": ("seed: !!timestamp x", "cannot be read"),
    "a huge number": ("seed: " + "9" * 5000, "cannot be read"),
    "a list as key": ("[a]: 3", "unhashable key in line 1"),
    "code": ("a: !!python/object/apply:os.system [touch RAN]", "could not determine a constructor"),
    "open": ("train: [", "in line"),
    "a null byte": ("a: \0", "cannot be read"),
    "two documents": ("a: 1\n---\nb: 2", "another document"),
    "no base64": ("a: !!binary x", "base64"),
    "a list": ("[1, 2]", "must hold 'name: value' lines"),
    "a number": ("42", "must hold 'name: value' lines"),
    "a number as key": ("1: 2", "1 cannot be 1"),
    "a set": ("options: {a: !!set {b}}", "is a set; give numbers"),
    "a date": ("options: {a: 2001-01-01}", "is a date; give numbers"),
    "too long": ("# " + "x" * 2**20 + "\n", "larger than 1 MiB"),
}


@pytest.mark.parametrize("name", YAML)
def test_yaml(received, refused, name):
    text, said = YAML[name]
    (received / "c.yaml").write_text(text)
    assert said in refused("compress", "c.yaml")


@pytest.mark.parametrize("content", [b"generator: caf\xe9\n", bytes(range(256)), b"\xff\xfe\0\0", b"\x80" * 100])
def test_yaml_that_is_no_text(received, refused, content):
    (received / "c.yaml").write_bytes(content)
    assert "no text in UTF-8" in refused("compress", "c.yaml")


KINDS = {"fifo": "a named pipe", "folder": "a folder", "zero": "a device", "loop": "symbolic links", "none": "No such"}


def put(place, kind):
    place.unlink(missing_ok=True)
    make = {"fifo": os.mkfifo, "folder": os.mkdir, "zero": lambda p: os.symlink("/dev/zero", p)}
    make |= {"loop": lambda p: os.symlink(p, p), "none": lambda p: None}
    make[kind](place)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", ["compress", "compare", "rank", "teacher"])
def test_yaml_that_is_no_file(received, refused, command, kind):
    put(received / "c.yaml", kind)
    given = {"teacher": ["teacher", "--data.path", "c.yaml", "--data.kind", "list"]}.get(command, [command, "c.yaml"])
    said = refused(*given)
    assert command == "teacher" or KINDS[kind] in said


LENGTHS = (".inf", ".nan", "-1", "1e300", "1.0e+99")
SETTINGS = [
    *(("--budget", value) for value in ("1e400", "nan", "inf", "-1", "0", "1e300G", "x", "1G,2H", "macs<=0")),
    *(
        (f"--{part}.kimg", value)
        for part in ("train", "finetune")
        for value in (".inf", ".nan", "-1", "1e300", "1.0e+99")
    ),
    *(("--train.lr", value) for value in (".inf", ".nan", "-1", "0", "1.0e+30")),
    *(("--train.batch", value) for value in ("0", "-4", "4.5", "9" * 20, ".nan", "[4]")),
    *(("--seed", value) for value in ("-1", "9" * 25, "4.5", ".inf", "x")),
    *(("--data.size", value) for value in ("0", "-4", "4.5", "1000000", "[1]", "[64, 64, 64]", "[64, .nan]", "{a: 1}")),
    *(("--data.channels", value) for value in ("0", "-1", "2", "1.5")),
    *(("--data.workers", value) for value in ("-1", "1000000")),
    *(("--search.trials", value) for value in ("-1", "9" * 20, "1.5", ".inf")),
    *(("--search.workers", value) for value in ("0", "-1", "99999999")),
    *(("--search.finalists", value) for value in ("0", "9" * 12)),
    *(("--evaluation.search_images", value) for value in ("0", "-3", ".nan")),
    *(("--space.fractions", value) for value in ("[0]", "[2]", "[.nan]", "[.inf]", "[]", "x")),
    *(("--space.multiple", value) for value in ("0", "-1", "1.5")),
    *(("--narrowing", value) for value in ("2", "-1", ".nan")),
    *(("--device", value) for value in ("gpu", "cuda:-1", "cuda:x", "cpu:0:0", "../x")),
    *((name, "os:getcwd:x y") for name in ("--device", "--convention", "--hand_on")),
    *(("--options", value) for value in ("[" * 3000, "{", "&a [*a]", "{a: 1, a: 2}", "4", "[1]", "\0", BOMB)),
    *(("--method", value) for value in ("nope", "", "{a: 1}", "[]")),
    *(("--data.kind", value) for value in ("nope", "", "[]")),
    *(("--devices", value) for value in ("1", "{a: 1}")),
    *(("--search.front_cost", value) for value in ("x", "latency_ms", "macs@x")),
    *(("--target", value) for value in ("nan", "inf", "-1", "0", "2", "x", "1e400")),
]


@pytest.mark.parametrize(("flag", "value"), SETTINGS)
def test_settings(received, refused, flag, value):
    assert len(refused("search", flag, value)) < 1000


FUNCTIONS = {
    "os:system": "{command: touch RAN}",
    "os:getcwd": "",
    "os:popen": "{cmd: touch RAN}",
    "subprocess:run": "{args: [touch, RAN]}",
    "subprocess:Popen": "{args: [touch, RAN]}",
    "shutil:rmtree": "{path: run}",
    "builtins:open": "{file: RAN, mode: w}",
    "builtins:eval": "",
    "io:open": "{file: RAN, mode: w}",
    "pathlib:Path": "",
    "logging:FileHandler": "{filename: RAN}",
    "tempfile:mkdtemp": "{dir: .}",
    "torch:save": "{obj: 1, f: RAN}",
    "numpy:save": "{file: RAN, arr: 1}",
    "torch.hub:load": "{repo_or_dir: run, model: m, source: local}",
    "torch.nn:Parameter": "",
    "math:pi": "",
    "a:b:c": "",
    ":": "",
    "..:x": "",
    "os.path:..": "",
    "run:x": "",
    "x\n:y": "",
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_generators_that_are_none_are_not_called(received, refused, name):
    refused("inspect", name, "--options", FUNCTIONS[name])
    refused("search", "--dry-run", "--generator", name, "--options", FUNCTIONS[name] or "{}", "--teacher", "none")
    assert (received / "run").is_dir()


@pytest.mark.parametrize(
    "setting",
    ["method", "ranking", "search.strategy", "data.kind", "train.task", "evaluation.search", "region", "embedding"],
)
def test_records_that_are_none_are_not_called(received, refused, setting):
    said = refused("search", "--dry-run", f"--{setting}", "os:system", "--teacher", "none", "--options", "{ngf: 4}")
    assert "os:system" in said


@pytest.mark.parametrize(
    "options", ["{ngf: -4}", "{ngf: 4.5}", "{ngf: 1000000000}", "{ngf: .nan}", "{ngf: [1]}", "{blocks: x}"]
)
def test_widths_that_cannot_be(refused, received, options):
    said = refused("inspect", "resnet_6blocks", "--options", options)
    assert "options" in said


def test_what_may_be_called():
    """By its kind, its annotation and where it lies; a function of one's own needs no annotation."""
    from functools import partial

    from torch import nn

    def plain():
        return nn.Identity()

    def annotated() -> nn.Module:
        return nn.Identity()

    def counts() -> int:
        return 1

    for fine in (plain, annotated, partial(plain), nn.Identity, nn.Conv2d):
        assert checked_call(fine, "x", "generator", "give one", nn.Module) is fine
    for wrong in (counts, partial(counts), len, os.system, print, dict, 3, nn.Parameter, json.dumps, nn.Identity()):
        with pytest.raises(ConfigError, match="was not called; give one"):
            checked_call(wrong, "x", "generator", "give one", nn.Module)


HOSTILE = {
    "deep": "[" * 100_000,
    "deep and closed": "[" * 90 + "]" * 90,
    "a list": "[1]",
    "a number": "1",
    "torn": '{"a": ',
    "binary": b"\xff\xfe\0\x80",
    "empty": "",
    "twice": '{"a": 1, "a": 2}',
    "a huge number": "9" * 5000,
    "a null byte": '{"a": "\0"}',
    "yaml": BOMB,
}


@pytest.mark.parametrize("content", HOSTILE)
@pytest.mark.parametrize("file", ["config.json", "trace.json", "subnet.json"])
def test_files_of_a_run_folder(received, refused, file, content):
    text = HOSTILE[content]
    (received / "run" / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert file in refused("export", "run")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "none"])
@pytest.mark.parametrize("file", ["config.json", "trace.json", "subnet.json"])
def test_files_of_a_run_folder_that_are_none(received, refused, file, kind):
    put(received / "run" / file, kind)
    refused("export", "run")


@pytest.mark.parametrize("values", [{"a": "x"}, {"a": None}, {"a": []}, {"a": {}}])
def test_widths_of_another_kind(received, refused, values):
    (received / "run/subnet.json").write_text(json.dumps(values))
    assert "'run/subnet.json' is damaged" in refused("export", "run")


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\n[1]\n",
        b"[1]\n",
        b"[" * 100_000 + b"\n",
        b"\n\n",
        b'{"op_code": 99}\n',
        b"{}\n",
        b"my notes",
        b"my notes\n",
        b"PK\x03\x04\nweights",
    ],
)
def test_a_journal_of_something_else(tmp_path, content):
    from gantailor.search.storage import open_study

    (tmp_path / "j").write_bytes(content)
    with pytest.raises(ConfigError, match=r"the journal .* is damaged"):
        open_study(tmp_path / "j", name="s")
    assert (tmp_path / "j").read_bytes() == content, "it may be anything of the user's"


def test_a_journal_that_ends_in_something_else(tmp_path):
    from gantailor.search.storage import open_study

    open_study(tmp_path / "j", name="s")
    with (tmp_path / "j").open("a") as file:
        file.write("\0\0\n")
    with pytest.raises(ConfigError, match=r"the journal .* is damaged"):
        open_study(tmp_path / "j", name="s")


@pytest.mark.parametrize("kind", ["fifo", "folder", "zero"])
def test_a_journal_that_is_no_file(tmp_path, kind):
    from gantailor.search.storage import open_study

    put(tmp_path / "j", kind)
    with pytest.raises(UnreadableError, match=KINDS[kind]):
        open_study(tmp_path / "j", name="s")


def png(width, height):
    """A header that says so, and a few bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


PICTURES = {
    "60000 px": png(60_000, 60_000),
    "2**31 px": png(2**31 - 1, 2**31 - 1),
    "15000 px": png(15_000, 15_000),
    "no width": png(0, 100),
    "text": b"hello",
    "empty": b"",
    "half": png(32, 32)[:40],
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(received, refused, name):
    for split in ("train", "test"):
        (received / "data" / split).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (64, 32), (number, 0, 0)).save(received / "data" / split / f"{number}.png")
    (received / "data/train/1.png").write_bytes(PICTURES[name])
    flags = ["--data.kind", "folder", "--data.path", "data", "--data.size", "32", "--teacher", "none"]
    assert "1.png' cannot be read" in refused("search", "--dry-run", "--options", "{ngf: 4}", *flags)


@pytest.mark.parametrize(
    "content", [b"e", b"\x80", b"hello world\n" * 50, b"\x80\x02e.", b"PK\x03\x04", b"\0" * 600, b"{" * 600]
)
@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_checkpoints(received, refused, name, content):
    (received / name).write_bytes(content)
    assert name in refused("search", "--dry-run", "--options", "{ngf: 4}", "--teacher", name, "--data.size", "32")


@pytest.mark.parametrize("out", ["untouched", "untouched/x", "/dev/null", "x" * 300, "a\0b"])
def test_places_that_are_no_run_folder(received, refused, out):
    refused("search", "--out", out, "--teacher", "none", "--options", "{ngf: 4}", "--data.size", "32")


def test_a_bug_is_one_line_and_says_where_to_tell_of_it(received, capsys, monkeypatch):
    def broken(arguments):
        raise KeyError("a\nb")

    monkeypatch.setattr("gantailor.cli.settings.show_papers", broken)
    assert main(["papers"]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and "KeyError" in said and "please report it" in said and "test_hostile" in said
    with pytest.raises(KeyError):
        main(["papers", "--debug"])


@pytest.mark.parametrize(
    ("error", "said"), [(MemoryError(), "not enough memory"), (RecursionError(), "nested too deep")]
)
def test_what_runs_out_is_told(capsys, monkeypatch, error, said):
    def broken(arguments):
        raise error

    monkeypatch.setattr("gantailor.cli.settings.show_papers", broken)
    assert main(["papers"]) == 2 and said in capsys.readouterr().err


def test_quiet_and_levels(capsys, monkeypatch):
    """Before or behind the command."""
    from gantailor.run.progress import Reporter

    monkeypatch.setattr(Reporter, "silent", False)
    for line in (["--quiet", "papers"], ["papers", "--quiet"], ["papers", "--log-level=error"]):
        assert main(line) == 0
    assert Reporter().quiet
    Reporter().note("not told")
    assert capsys.readouterr().err == ""
    for level in ("loud", ""):
        assert main(["papers", "--log-level", level]) == 2
        assert "Allowed: critical, debug, error, info, warning" in capsys.readouterr().err


STREAMS = (
    ("papers", "> /dev/full", 2, 1),
    ("papers", ">&-", 0, 0),
    ("papers", "2>&-", 0, 0),
    ("inspect nope", "2>&-", 2, 0),
    ("inspect nope", "2> /dev/full", 2, 0),
)


@pytest.mark.parametrize(("line", "more", "status", "lines"), STREAMS)
def test_streams_that_are_closed_or_full(received, line, more, status, lines):
    shell = f"{sys.executable} -m gantailor.cli {line} {more}"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=False, env=os.environ)
    assert (done.returncode, len(done.stderr.splitlines())) == (status, lines), done


def test_letters_that_a_terminal_has_not(received):
    """In the C locale; what was written is there."""
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "gantailor.cli", "evaluate", "Ausgabe-ä"]
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and b"is no run folder" in done.stderr


def test_without_a_home(received, refused, monkeypatch):
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    assert not is_own({}, mark({}) or "x")
    refused("evaluate", "nowhere")


@pytest.mark.parametrize(
    "value", [{4: 16, 8: 16}, {"a": {1: 2}}, {True: 1, None: 2, 1.5: 3}, {"=pairs": 1}, {"4": 1}, {}]
)
def test_options_come_back_from_json_as_they_were(value):
    assert restored(json.loads(json.dumps(stored(value)))) == value


def test_settings_come_back_from_a_run_folder_as_they_were(tmp_path):
    from gantailor.run.config import Config
    from gantailor.run.run import Run, open_run

    config = Config(generator="stylegan2", options={"size": 16, "channels": {4: 16, 8: 8, 16: 8}}, teacher="none")
    Run(tmp_path / "run", config).claim()
    assert open_run(tmp_path / "run").config == config
    assert documents.read_yaml(tmp_path / "run/config.json")["options"]["size"] == 16, "it can be started from as well"


def test_lines_of_a_log_that_are_none_are_left_out():
    assert documents.parse_lines('{"a": 1}\n[1]\n{"b"\n' + "[" * 9000 + '\n{"c": 2}\n{"d": ') == [{"a": 1}, {"c": 2}]
