"""The reader of every picture: each mode against its right value, files that are none, names that belong together."""

import os
import socket
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gantailor.evaluators.pictures.files import list_pictures, picture_files
from gantailor.evaluators.pictures.ids import Colours, instance_ids, label_ids
from gantailor.evaluators.pictures.modes import MODES, ORIENTATION, ORIENTATIONS, as_channels
from gantailor.evaluators.pictures.names import match_names
from gantailor.evaluators.pictures.reader import PictureReader, say
from gantailor.supernet.errors import DataError

RAMP = np.array([[65535 * k // 7 for k in range(8)]], np.uint16)
EIGHT = [0, 36, 73, 109, 146, 182, 219, 255]
WHITE = (255, 255, 255)


def read(image, path, **options):
    image.save(path)
    reader = PictureReader(**options)
    return reader.read(path), reader.notes


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits(tmp_path, suffix):
    pixels, notes = read(Image.fromarray(RAMP), tmp_path / f"x.{suffix}")
    assert pixels.shape == (1, 8, 3) and [list(p) for p in pixels[0]] == [[v] * 3 for v in EIGHT]
    assert dict(notes) == {"16 bits, read as 8": 1}


def test_sixteen_bits_of_the_other_order(tmp_path):
    """A big-endian TIFF, written by hand."""
    entries = [(256, 3, 8), (257, 3, 1), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (279, 4, 16)]
    data = b"MM\x00\x2a" + (24).to_bytes(4, "big") + RAMP.astype(">u2").tobytes() + len(entries).to_bytes(2, "big")
    for tag, kind, value in entries:
        data += tag.to_bytes(2, "big") + kind.to_bytes(2, "big") + (1).to_bytes(4, "big")
        data += value.to_bytes(2, "big") + b"\0\0" if kind == 3 else value.to_bytes(4, "big")
    (tmp_path / "x.tif").write_bytes(data + bytes(4))
    with Image.open(tmp_path / "x.tif") as image:
        assert image.mode == "I;16B"
    assert PictureReader().read(tmp_path / "x.tif")[0, :, 0].tolist() == EIGHT


def chunk(kind, data):
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def png(path, width, height, bits, colour, rows, *more):
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([bits, colour, 0, 0, 0])
    chunks = [chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return path


def test_sixteen_bits_in_colour_and_with_a_transparent_value(tmp_path):
    rgb = np.stack([RAMP, RAMP, RAMP], -1).astype(">u2")
    file = png(tmp_path / "rgb.png", 8, 1, 16, 2, b"\0" + rgb.tobytes())
    reader = PictureReader()
    assert np.abs(reader.read(file)[0, :, 1].astype(int) - EIGHT).max() <= 1
    assert dict(reader.notes) == {"16 bits, read as 8": 1}
    file = png(tmp_path / "key.png", 8, 1, 16, 0, b"\0" + RAMP.astype(">u2").tobytes(), chunk(b"tRNS", b"\0\0"))
    assert PictureReader(background="#0a0a0a").read(file)[0, :, 0].tolist() == [10, *EIGHT[1:]]
    assert PictureReader(channels=4).read(file)[0, :, 3].tolist() == [0] + [255] * 7


def test_floats(tmp_path):
    pixels, notes = read(Image.fromarray((RAMP / 65535).astype(np.float32)), tmp_path / "x.tif")
    assert pixels[0, :, 0].tolist() == EIGHT and dict(notes) == {"float, read as 8 bits": 1}
    for array, said in (
        (RAMP / 257, "from 0 to 255; wanted are 0 to 1"),
        (RAMP * -1.0, "from -65535"),
        (RAMP * np.nan, "nan"),
    ):
        with pytest.raises(DataError, match=rf"x\.tif.*{said}"):
            read(Image.fromarray(array.astype(np.float32)), tmp_path / "x.tif")


def test_whole_numbers(tmp_path):
    assert read(Image.fromarray(RAMP.astype(np.int32)), tmp_path / "x.tif")[0][0, :, 0].tolist() == EIGHT
    with pytest.raises(DataError, match=r"x\.tif.*32-bit values from 0 to 131070; wanted are 0 to 65535"):
        read(Image.fromarray(RAMP.astype(np.int32) * 2), tmp_path / "x.tif")


def test_alpha_lies_on_a_colour(tmp_path):
    rgba = Image.fromarray(np.array([[[255, 0, 0, 0], [255, 0, 0, 128], [255, 0, 0, 255]]], np.uint8))
    pixels, notes = read(rgba, tmp_path / "x.png")
    assert pixels[0].tolist() == [[255, 255, 255], [255, 127, 127], [255, 0, 0]]
    assert dict(notes) == {"transparent, laid on the background": 1}
    assert read(rgba, tmp_path / "x.png", background="black")[0][0].tolist() == [[0, 0, 0], [128, 0, 0], [255, 0, 0]]
    assert read(rgba, tmp_path / "x.png", channels=4)[0].tolist() == np.asarray(rgba).tolist()
    assert read(rgba, tmp_path / "x.png", channels=1)[0][0, :, 0].tolist() == [255, 165, 76]
    la = Image.fromarray(np.array([[[10, 0], [10, 255]]], np.uint8))
    assert read(la, tmp_path / "x.png")[0][0, :, 1].tolist() == [255, 10]
    assert not read(Image.new("RGBA", (2, 2), (1, 2, 3, 255)), tmp_path / "x.png")[1]


def test_palettes(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([9, 8, 7, 200, 100, 0, 0, 0, 255])
    image.info.pop("transparency", None)
    colours = [[9, 8, 7], [200, 100, 0], [0, 0, 255]]
    assert read(image, tmp_path / "x.png")[0][0].tolist() == colours
    image.info["transparency"] = 1
    image.save(tmp_path / "x.png", transparency=1)
    assert PictureReader().read(tmp_path / "x.png")[0].tolist() == [colours[0], [255, 255, 255], colours[2]]
    image.save(tmp_path / "x.gif", transparency=1)
    assert PictureReader(background="#010203").read(tmp_path / "x.gif")[0, 1].tolist() == [1, 2, 3]
    image.save(tmp_path / "y.png", transparency=bytes([255, 0, 128]))
    assert PictureReader().read(tmp_path / "y.png")[0].tolist() == [colours[0], [255, 255, 255], [127, 127, 255]]


def slow(mode, value):
    """What one pixel of a mode becomes, in RGB."""
    if mode == "1":
        return [255 * (value[0] > 127)] * 3
    if mode in ("L", "LA", "La", "I;16", "I;16B", "I;16L", "I", "F"):
        return [value[0]] * 3
    if mode == "CMYK":
        return [round((255 - value[k]) * (255 - value[3]) / 255) for k in range(3)]
    return value[:3]


@settings(deadline=None, max_examples=60)
@given(
    mode=st.sampled_from(["1", "L", "LA", "RGB", "RGBA", "RGBX", "CMYK", "I;16", "I;16B", "I;16L", "I", "F"]),
    value=st.tuples(*[st.integers(0, 255)] * 4),
    sides=st.tuples(st.integers(1, 7), st.integers(1, 7)),
)
def test_every_mode(mode, value, sides):
    """The table without files: one colour, of any size, is the right one everywhere."""
    value = [*value[:3], 255] if mode in ("RGBA", "LA") else list(value)
    deep = {"I": value[0] * 257, "F": value[0] / 255}
    colour = {"L": value[0], "1": 255 * (value[0] > 127), "LA": (value[0], 255), "RGB": tuple(value[:3])}
    if mode.startswith("I;16"):
        kind = ">u2" if mode == "I;16B" else "<u2"
        image = Image.frombytes(mode, sides, np.full(sides, value[0] * 257, kind).tobytes())
    else:
        image = Image.new(mode, sides, colour.get(mode, deep.get(mode, tuple(value))))
    pixels = PictureReader().pixels(image, "")
    assert pixels.shape == (*sides[::-1], 3) and pixels.dtype == np.uint8 and mode in MODES
    assert np.abs(pixels.astype(int) - slow(mode, value)).max() <= 1
    grey = PictureReader(channels=1).pixels(image, "")
    luminance = np.dot(pixels[0, 0], [0.299, 0.587, 0.114])
    assert grey.shape == (*sides[::-1], 1) and abs(float(grey[0, 0, 0]) - luminance) <= 1
    assert PictureReader(channels=4).pixels(image, "").shape == (*sides[::-1], 4)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [("YCbCr", (76, 85, 255), (254, 0, 0)), ("HSV", (0, 255, 200), (200, 0, 0)), ("PA", (3, 255), (3, 3, 3))],
)
def test_other_modes(mode, colour, expected):
    image = Image.new(mode, (2, 2), colour)
    if mode == "PA":
        image.putpalette([v for v in range(256) for _ in range(3)])
    assert np.abs(PictureReader().pixels(image, "").astype(int) - expected).max() <= 1


def test_lab_and_premultiplied():
    lab = PictureReader().pixels(Image.new("LAB", (2, 2), (255, 128, 128)), "")
    assert lab.min() >= 253, "white"
    whole = Image.new("RGBA", (2, 2), (200, 100, 50, 128))
    for mode in ("RGBa",):
        assert (
            np.abs(PictureReader(channels=4).pixels(whole.convert(mode), "")[0, 0] - [200.0, 100, 50, 128]).max() <= 2
        )
    grey = Image.new("LA", (2, 2), (200, 128)).convert("La")
    assert np.abs(PictureReader(channels=4).pixels(grey, "")[0, 0] - [200.0, 200, 200, 128]).max() <= 2


UPRIGHT = np.arange(6, dtype=np.uint8).reshape(2, 3)
STORED = {  # what a camera held otherwise writes of UPRIGHT, by the EXIF standard
    1: [[0, 1, 2], [3, 4, 5]],
    2: [[2, 1, 0], [5, 4, 3]],
    3: [[5, 4, 3], [2, 1, 0]],
    4: [[3, 4, 5], [0, 1, 2]],
    5: [[0, 3], [1, 4], [2, 5]],
    6: [[2, 5], [1, 4], [0, 3]],
    7: [[5, 2], [4, 1], [3, 0]],
    8: [[3, 0], [4, 1], [5, 2]],
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_orientation(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = np.array(STORED[orientation], np.uint8) * 50
    more = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(stored).convert("RGB").save(tmp_path / f"x.{suffix}", exif=exif, **more)
    pixels = PictureReader().read(tmp_path / f"x.{suffix}")
    assert pixels[..., 0].tolist() == (UPRIGHT * 50).tolist()
    assert ORIENTATIONS[orientation](np.array(STORED[orientation])).tolist() == UPRIGHT.tolist()


def test_orientation_of_a_photo(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.new("RGB", (32, 16)).save(tmp_path / "x.jpg", exif=exif)
    assert PictureReader().read(tmp_path / "x.jpg").shape == (32, 16, 3)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_the_first_frame(tmp_path, suffix):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    more = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:], **more)
    reader = PictureReader()
    assert reader.read(tmp_path / f"x.{suffix}")[0, 0].tolist() == [255, 0, 0]
    assert dict(reader.notes) == {"animated or of several pages, of which the first is read": 1}


def broken_files(folder):
    Image.new("RGB", (8, 8)).save(folder / "whole.png")
    whole = (folder / "whole.png").read_bytes()
    at = whole.index(b"IDAT")
    (folder / "chunk.png").write_bytes(whole[: at + 2] + b"\xff\xff" + whole[at + 4 :])
    (folder / "short.png").write_bytes(whole[:-30])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("no picture")
    Image.effect_noise((64, 64), 50).save(folder / "photo.jpg")
    (folder / "cut.jpg").write_bytes((folder / "photo.jpg").read_bytes()[:900])
    header = (20000).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    (folder / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b""))
    return {
        "chunk.png": "",
        "short.png": "",
        "empty.png": "empty file",
        "text.jpg": "no picture",
        "cut.jpg": "truncated",
        "bomb.png": "million pixels",
    }


def test_broken_files_are_named(tmp_path):
    broken = broken_files(tmp_path)
    for name, reason in broken.items():
        with pytest.raises(DataError) as error:
            PictureReader().read(tmp_path / name)
        said = str(error.value)
        assert repr(str(tmp_path / name)) in said and reason in said and "\n" not in said
        assert "mend or remove it, or set data.skip_corrupt: true" in said
    reader = PictureReader(skip_corrupt=True)
    kept = [f.name for f in picture_files(tmp_path) if reader.read(f) is not None]
    assert kept == ["photo.jpg", "whole.png"]
    assert reader.summary() == {"cannot be read and are left out (bomb.png, chunk.png, cut.jpg, ...)": 6}


def test_what_is_no_picture_file_is_left_out(tmp_path):
    """Hidden names, folders, FIFOs, sockets and links to nothing; a FIFO is not opened."""
    Image.new("RGB", (4, 4)).save(tmp_path / "x.TIFF")
    for name in ("._x.png", ".x.png"):
        (tmp_path / name).write_bytes(b"Mac OS X")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "nothing")
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(tmp_path)  # names of sockets are short
        try:
            listening.bind("socket.png")
        finally:
            os.chdir(here)
        code = "import sys; from pathlib import Path; from gantailor.evaluators.pictures.files import list_pictures; "
        code += f"print([p.name for p in list_pictures(Path({str(tmp_path)!r}))])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "['x.TIFF']"
    assert list_pictures(tmp_path / "nowhere") == []


def test_said_once_with_counts(tmp_path, caplog):
    reader = PictureReader()
    for number in range(3):
        Image.fromarray(RAMP).save(tmp_path / f"{number}.png")
        reader.read(tmp_path / f"{number}.png")
    for _ in range(2):
        say(f"folder {tmp_path}", 5, reader.summary())
    assert [r.message for r in caplog.records] == [f"folder {tmp_path}: of 5 pictures 3 16 bits, read as 8"]


def test_other_channels():
    rgba = np.array([[[255, 0, 0, 0], [10, 20, 30, 255]]], np.uint8)
    assert as_channels(rgba, 3, WHITE)[0].tolist() == [[255, 255, 255], [10, 20, 30]]
    assert as_channels(rgba[..., :3], 1, WHITE)[0, :, 0].tolist() == [76, 18]
    assert as_channels(rgba[..., :1], 4, WHITE)[0, 0].tolist() == [255, 255, 255, 255]


def ids(image, path, how=label_ids, **options):
    image.save(path)
    return PictureReader().decode(path, lambda opened, rawmode: how(opened, rawmode, **options))


def test_ids_by_value(tmp_path):
    deep = np.array([[0, 1, 300, 65535]], np.uint16)
    assert ids(Image.fromarray(deep), tmp_path / "x.png").tolist() == [[0, 1, 300, 65535]]
    assert ids(Image.fromarray(deep.astype(np.int32)), tmp_path / "x.tif").tolist() == [[0, 1, 300, 65535]]
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    palette.putpalette([200, 0, 0, 200, 0, 0, 9, 9, 9])
    assert ids(palette, tmp_path / "x.png").tolist() == [[0, 1, 2]]
    assert ids(Image.fromarray(np.array([[False, True]])), tmp_path / "x.png").tolist() == [[0, 1]]
    few = png(tmp_path / "few.png", 4, 1, 4, 0, b"\0" + bytes([0x01, 0x2F]))
    assert PictureReader().decode(few, label_ids).tolist() == [[0, 1, 2, 15]]
    few = png(tmp_path / "few.png", 4, 1, 2, 0, b"\0" + bytes([0b00011011]))
    assert PictureReader().decode(few, label_ids).tolist() == [[0, 1, 2, 3]]
    equal = np.array([[0, 1, 7]], np.uint8)
    assert ids(Image.fromarray(np.stack([equal] * 3, -1)), tmp_path / "x.png").tolist() == [[0, 1, 7]]


def test_ids_by_colour(tmp_path):
    colours = np.array([[[128, 64, 128], [128, 0, 128], [1, 1, 1]]], np.uint8)
    with pytest.raises(DataError, match=r"x\.png' has colours, and no ids: name a table of them, data\.labels"):
        ids(Image.fromarray(colours), tmp_path / "x.png")
    table = Colours(np.array([[128, 0, 128], [128, 64, 128]], np.uint8), np.array([4, 9]), "mine")
    assert ids(Image.fromarray(colours), tmp_path / "x.png", colours=table).tolist() == [[9, 4, -2]]
    rgba = Image.fromarray(colours).convert("RGBA")
    assert ids(rgba, tmp_path / "x.png", colours=table).tolist() == [[9, 4, -2]]
    assert ids(rgba.quantize(8), tmp_path / "x.png", colours=table).tolist() == [[9, 4, -2]]
    assert ids(Image.fromarray(colours[..., 1]), tmp_path / "x.png", colours=table).tolist() == [[64, 0, 1]]


def test_instances(tmp_path):
    deep = np.array([[0, 256, 32000]], np.uint16)
    assert ids(Image.fromarray(deep), tmp_path / "x.png", instance_ids).tolist() == [[0, 256, 32000]]
    large = np.array([[0, 70000, 2_000_000]], np.int32)
    assert ids(Image.fromarray(large), tmp_path / "x.tif", instance_ids).tolist() == large.tolist()
    colours = np.array([[[1, 0, 0], [1, 2, 0], [1, 2, 3]]], np.uint8)
    assert ids(Image.fromarray(colours), tmp_path / "x.png", instance_ids).tolist() == [[1, 513, 197121]]


def paths(folder, *names):
    return [Path(folder) / name for name in sorted(names)]


def test_names_that_match():
    matched = match_names(
        paths("a", *(f"{k}.png" for k in range(1, 11))), paths("b", *(f"{k:03}.jpg" for k in range(1, 11)))
    )
    assert {(a.name, b.name) for a, b in matched.pairs} == {(f"{k}.png", f"{k:03}.jpg") for k in range(1, 11)}
    assert not matched.unmatched()
    both = match_names(paths("a", "x.png", "x.jpg"), paths("b", "x.png", "x.jpg"))
    assert [(a.name, b.name) for a, b in both.pairs] == [("x.jpg", "x.jpg"), ("x.png", "x.png")]
    decomposed = match_names(
        paths("a", "e\u0301te\u0301 1.png"), paths("b", "\u00e9t\u00e9 01.png")
    )  # a Mac's, and others'
    assert len(decomposed.pairs) == 1 and not decomposed.unmatched()
    exact = match_names(paths("a", "img1.png", "img2.png"), paths("b", "img01.png", "img1.png", "img7.png"))
    assert [(a.name, b.name) for a, b in exact.pairs] == [("img1.png", "img1.png")]
    assert exact.unmatched() == "1 of 'a' (img2.png) and 2 of 'b' (img01.png, img7.png)"


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (["x.png", "x.jpg"], ["x.png"], "'x.jpg' and 'x.png' in 'a' have one name up to the suffix"),
        (["x.png"], ["x.png", "x.jpg"], "'x.jpg' and 'x.png' in 'b' have one name"),
        (["1.png", "01.png"], ["001.png"], "'01.png' and '1.png' in 'a' differ in zeros only"),
    ],
)
def test_names_that_nobody_can_match(first, second, said):
    with pytest.raises(DataError, match=said):
        match_names(paths("a", *first), paths("b", *second))
