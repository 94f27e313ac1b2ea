"""The corpus of bad and odd images: what each case is, how it is made, and what becomes of it.

`tests/whole/test_bad_images.py` runs it all, `docs/generate/bad_images_page.py` writes `docs/bad-images.md` from it.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from heatlas.statuses import DECODE_ERROR, LABEL_ERROR, OK, READ_ERROR, TRUTH_ERROR
from PIL import Image

from .corpus_files import (
    HEIGHT,
    SQUARE,
    WIDTH,
    animated,
    bad_crc,
    bomb,
    cmyk,
    corrupt_exif,
    cut,
    exif,
    grey,
    grey_alpha,
    jpeg,
    mask,
    no_animation,
    noisy,
    oriented,
    oriented_box,
    png,
    saved,
    scene,
    see_through,
    sixteen_bit_colour,
    stored_as,
    text_bomb,
    ycck,
)  # fmt: skip

CLASSES = ("upper left", "upper right", "lower left", "lower right")
"""The test's network says in which quarter it is brightest red; the scene's square is in the first."""
FACTORY = '''
"""The corpus's network; building it makes one file vanish that the listing has seen already."""
from pathlib import Path

import torch
from torch import nn


def quarters() -> nn.Module:
    torch.manual_seed(0)
    Path({vanishing!r}).unlink(missing_ok=True)
    convolutions = [nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)]
    head = nn.Linear(24, 4)
    with torch.no_grad():
        for layer in convolutions:  # feature 0 hands red through
            layer.weight[0] = 0
            layer.weight[0, 0, 1, 1] = 1
            layer.bias[0] = 0
        head.weight[range(4), range(4)] += 12
    first, second, third = convolutions
    body = [first, nn.ReLU(), nn.MaxPool2d(2), second, nn.ReLU(), nn.MaxPool2d(2), third, nn.ReLU()]
    model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(2), nn.Flatten(), head)
    model.class_names = {classes!r}
    model.preprocess = {{"size": 24, "resize": "squash", "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}}
    return model
'''
SCENE = (HEIGHT, WIDTH)
Make = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """One row of the manifest and what becomes of it."""

    group: str
    id: str
    what: str
    content: bytes | Make | None
    """The file's bytes, or what makes it at a path; None: there is none, or it is another case's."""
    status: str = OK
    text: str = ""
    """Part of the error text; nothing for `ok`."""
    size: tuple[int, int] = SCENE
    """Height and width of an `ok` row."""
    scene: bool = True
    """Whether an `ok` row must show the scene, upright and in its colours."""
    uri: str = ""
    """As the manifest has it; by default `files/ID`."""
    row: dict[str, Any] = field(default_factory=dict)
    """Further columns of the manifest."""


def bad(
    group: str, id: str, what: str, content: bytes | Make | None, text: str, status: str = DECODE_ERROR, **more: Any
) -> Case:
    return Case(group, id, what, content, status, text, **more)


def cut_short() -> list[Case]:
    group, result = "Cut short", []
    for kind, begins in (("jpg", "JPEG"), ("png", "PNG")):
        data = saved(noisy(), begins)
        result += [
            bad(group, f"cut-at-{percent:02}.{kind}", f"{begins}, the first {percent} % of its bytes", cut(data, percent), "image file is truncated")
            for percent in range(10, 100, 10)
        ]  # fmt: skip
    for kind in ("GIF", "WEBP", "TIFF", "BMP"):
        result.append(
            bad(group, f"half.{kind.lower()}", f"{kind}, the first half", cut(saved(noisy(), kind), 50), "cut short")
        )
    return result


def no_images() -> list[Case]:
    group = "No image at all"
    html = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>\n"
    return [
        bad(group, "empty.jpg", "no bytes", b"", "not an image: the file is empty"),
        bad(group, "text.jpg", "a text", b"I am no image\n", "it is text that begins with 'I am no image"),
        bad(group, "error-page.jpg", "an HTML error page", html, "it is text that begins with '<!DOCTYPE html>"),
        bad(group, "zeros.jpg", "4 kB of zero bytes", bytes(4096), "it begins with zero bytes"),
        bad(group, "noise.jpg", "random bytes", b"\x93\x01\x02\xfe" * 64, "unknown format, first bytes 93 01 02 fe"),
        bad(group, "drawing.png", "an SVG", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "it is text that begins with"),
        bad(group, "program.jpg", "PostScript, which is a program", b"%!PS-Adobe-3.0 EPSF-3.0\n", "it is text that begins with '%!PS"),
        bad(group, "lfs.png", "a Git LFS pointer", b"version https://git-lfs.github.com/spec/v1\n", "it is text that begins with 'version"),
        bad(group, "signature.jpg", "a JPEG's first three bytes, then text", b"\xff\xd8\xff no more", "begins like a JPEG file but is damaged"),
        bad(group, "no-pixels.ppm", "0 x 0 pixels", b"P6 0 0 255\n", "it begins like a PPM file but is damaged"),
    ]  # fmt: skip


def large_and_small() -> list[Case]:
    group = "Large and small"
    return [
        bad(group, "bomb.png", "decompression bomb: 50 000 x 50 000 pixels in 120 bytes", bomb(50_000, 50_000), "decompression bombs"),
        bad(group, "over-limit.png", "90 million pixels, just above the limit", bomb(10_000, 9_000), "more than the limit of 89478485"),
        bad(group, "comment-bomb.png", "a comment that unfolds to 8 MB", text_bomb(), "Decompressed data too large"),
        bad(group, "sparse.png", "3 GiB of nothing", lambda path: os.truncate(_touched(path), 3 << 30), "more than the limit of 2147483648 for a file",
            READ_ERROR),
        Case(group, "1x1.png", "1 x 1 pixel", png(Image.new("RGB", (1, 1), "red")), size=(1, 1), scene=False),
        Case(group, "1x50.png", "1 pixel wide, 50 high", png(scene(1, 50)), size=(50, 1), scene=False),
        Case(group, "50x1.png", "50 wide, 1 high", png(scene(50, 1)), size=(1, 50), scene=False),
        Case(group, "wide.png", "30 000 wide, 20 high", png(scene(30_000, 20)), size=(20, 30_000)),
        Case(group, "high.jpg", "20 wide, 30 000 high", jpeg(scene(20, 30_000)), size=(30_000, 20)),
    ]  # fmt: skip


def modes_and_formats() -> list[Case]:
    group = "Modes and formats"
    whole, deep = grey(), (grey() * 65535).astype(np.uint16)
    palette = scene().quantize(4)
    files = [
        ("grey.png", "grey", png(scene().convert("L"))), ("grey.jpg", "grey JPEG", jpeg(scene().convert("L"))),
        ("one-bit.png", "1 bit", png(scene().convert("L").point(lambda value: 255 * (value > 99)).convert("1"))),
        ("grey-alpha.png", "grey with alpha, which is dropped", png(grey_alpha())),
        ("see-through.png", "RGBA, wholly transparent: alpha is dropped", png(see_through())),
        ("palette.png", "palette", png(palette)), ("palette-alpha.png", "palette with alpha per entry", png(palette, transparency=bytes(4))),
        ("16-bit-grey.png", "16-bit grey: scaled, not clipped", png(Image.fromarray(deep))),
        ("16-bit-grey.tif", "16-bit grey TIFF", saved(Image.fromarray(deep), "TIFF")),
        ("16-bit-colour.png", "16-bit colour", sixteen_bit_colour()),
        ("cmyk.jpg", "CMYK JPEG", jpeg(cmyk())), ("cmyk.tif", "CMYK TIFF", saved(cmyk(), "TIFF")), ("ycck.jpg", "YCCK JPEG", ycck()),
        ("progressive.jpg", "progressive JPEG", jpeg(progressive=True)),
        ("animated.gif", "animated GIF: its first frame", animated("GIF")), ("animated.webp", "animated WebP: its first frame", animated("WEBP")),
        ("animated.png", "animated PNG: its first frame", animated("PNG")), ("pages.tif", "TIFF of two pages: the first", animated("TIFF")),
        ("still.webp", "WebP", saved(scene(), "WEBP")), ("plain.bmp", "BMP", saved(scene(), "BMP")), ("wavelets.jp2", "JPEG 2000", saved(scene(), "JPEG2000")),
        ("plain.ppm", "PPM", saved(scene(), "PPM")), ("wrong-suffix.jpg", "a PNG named .jpg", png()),
    ]  # fmt: skip
    negative = saved(Image.fromarray(whole - 0.5), "TIFF")
    unclear = "nobody says which are black and white: say --decode.range"
    return [
        *(Case(group, id, what, content) for id, what, content in files),
        bad(
            group,
            "float.tif",
            "float TIFF in [0, 1], among images of 8 bits",
            saved(Image.fromarray(whole), "TIFF"),
            unclear,
        ),
        bad(group, "negative.tif", "float TIFF with negative values", negative, unclear),
    ]


def exif_blocks() -> list[Case]:
    group, result = "EXIF", []
    for turn in range(1, 9):
        boxes = [oriented_box(turn)]
        result.append(
            Case(group, f"turned-{turn}.jpg", f"orientation {turn}, with a box", oriented(turn), row={"boxes": boxes})
        )
    result += [
        Case(group, f"turned-6.{kind.lower()}", f"orientation 6 in a {kind}", oriented(6, kind)) for kind in ("PNG", "WEBP", "TIFF")
    ]  # fmt: skip
    result += [
        Case(group, f"corrupt-exif.{kind.lower()}", f"corrupt EXIF block in a {kind}", saved(scene(), kind, exif=corrupt_exif()))
        for kind in ("JPEG", "PNG", "WEBP")
    ]  # fmt: skip
    return [
        *result,
        Case(group, "orientation-9.jpg", "orientation 9, which does not exist", jpeg(exif=exif(9))),
        Case(group, "exif-noise.jpg", "EXIF block of random bytes", jpeg(exif=b"Exif\0\0" + bytes(range(1, 100)))),
        Case(group, "no-frames.png", "says it is animated, with no frames", no_animation()),
    ]


def damaged_inside() -> list[Case]:
    group = "Damaged inside"
    data = jpeg()
    return [
        bad(group, "bad-crc.png", "one flipped byte in a PNG", bad_crc(), "the checksum of its IDAT chunk is wrong"),
        Case(group, "tail.jpg", "a kB of text after the end", data + b"text" * 256),
        bad(
            group,
            "no-end.jpg",
            "a JPEG without its last two bytes (the end marker)",
            data[:-2],
            "image file is truncated",
        ),
    ]


def names() -> list[Case]:
    group = "Names"
    odd = [
        ("new\nline.png", "a line break"), ("\x1b[2J\x1b[31mred.png", "a terminal's escape sequences"), ("[bold red]rich.png", "markup"),
        ("a::b.png", "`::`, which chains URLs elsewhere"), ("50%20#?&=.png", "what URLs would decode"), ("-rf.png", "a leading dash"),
        ("=1+1.png", "a spreadsheet's formula"), ("'\"; DROP TABLE atlas; --.png", "quotes and SQL"), ("ünï-日本-🦊.png", "Unicode"),
        ("\u202egnp.exe.png", "a turn of the writing direction"), ("n" * 240 + ".png", "240 characters"),
    ]  # fmt: skip
    results = [Case(group, name, what, png()) for name, what in odd]
    for name in ("../../../evil.png", "/etc/heatlas-evil", "C:\\evil.png", "..", ".", "a/../../b", "nul\0byte"):
        results.append(Case(group, name, "an id that looks like a path", None, uri="files/plain.png"))
    not_utf8 = Path(os.fsdecode(b"caf\xe9.jpg"))
    return [
        *results,
        Case(group, "plain.png", "the file of these ids", png()),
        bad(group, "caf\\xe9.jpg", "bytes that are not UTF-8, as a folder's listing writes them", lambda path: (path.parent / not_utf8).write_bytes(jpeg()),
            "rename files whose names are not UTF-8", READ_ERROR),
    ]  # fmt: skip


def places() -> list[Case]:
    group = "Places"

    def read(id: str, what: str, content: Make | None, text: str, uri: str = "") -> Case:
        return bad(group, id, what, content, text, READ_ERROR, uri=uri)

    return [
        read("gone.png", "no such file", None, "no such file"),
        read("dangling.png", "a link to nothing", lambda path: path.symlink_to("nothing"), "no such file"),
        read("loop.png", "a link to itself", lambda path: path.symlink_to(path.name), "too many levels of symbolic links"),
        read("folder.jpg", "a folder", lambda path: path.mkdir(), "is a directory"),
        read("under-a-file.png", "below a file", None, "not a directory", "files/plain.png/x.png"),
        read("no-permission.png", "no permission", unreadable, "permission denied"),
        read("pipe.png", "a pipe nobody writes to", lambda path: os.mkfifo(path), "not a regular file"),
        read("endless.png", "a link to /dev/zero", lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
        read("vanishing.png", "there at the listing, gone at the reading", lambda path: path.write_bytes(png()), "no such file"),
        read("long.png", "a name of 300 characters", None, os.strerror(errno.ENAMETOOLONG).lower(), f"files/{'n' * 300}.png"),
        read("null.png", "a null byte", None, "null byte", "files/a\0b.png"),
        read("nosuch.png", "an unknown scheme", None, "give a local path or one of s3://", "nosuch://bucket/a.png"),
        read("remote.png", "a place that is remote and not there", None, "no such file", "memory://heatlas-corpus/a.png"),
        Case(group, "file-uri.png", "file:// and an absolute path", png(), uri="file://{folder}/files/file-uri.png"),
        Case(group, "link.png", "a link to an image", lambda path: path.symlink_to("plain.png")),
    ]  # fmt: skip


def labels() -> list[Case]:
    group = "Labels (the label is explained)"
    wrong = {
        "no-class": ("tabby", "a name that is no class"), "too-high": (4, "an index one too high"), "negative": (-1, "a negative index"),
        "fraction": (1.5, "a fraction"), "boolean": (True, "a boolean"), "missing": (None, "none"), "blank": ("", "an empty text"),
        "nan": (float("nan"), "NaN"), "digits": ("9" * 400, "400 digits"),
    }  # fmt: skip
    right = {
        "name": ("upper left", "a class's name"),
        "index": (0, "an index"),
        "float": (0.0, "an index as a float"),
        "padded": (" 0 ", "spaces around"),
    }
    return [
        *(bad(group, f"label-{id}.png", what, png(), "the sample has no label, or one that names no class", LABEL_ERROR, row={"label": value}) for id, (value, what) in wrong.items()),
        *(Case(group, f"label-{id}.png", what, png(), row={"label": value}) for id, (value, what) in right.items()),
    ]  # fmt: skip


def boxes() -> list[Case]:
    group, nan, far = "Boxes", float("nan"), 1e300
    x0, y0, x1, y1 = SQUARE
    wrong = {
        "outside": ([WIDTH + 1, 0, WIDTH + 9, 9], "wholly outside", "lies outside its image of 48 x 32 pixels"),
        "touching": ([WIDTH, 0, WIDTH + 9, 9], "outside, touching the edge", "lies outside"),
        "inverted": ([x1, y0, x0, y1], "left and right swapped", "is empty or inverted"),
        "nan": ([nan, y0, x1, y1], "NaN", "is not finite"),
        "infinite": ([x0, y0, float("inf"), y1], "infinite", "is not finite"),
    }
    right = {
        "partly": ([[-9, -9, x1, y1]], "partly outside: clipped"), "huge": ([[-far, -far, far, far]], "everything and more: clipped"),
        "no-area": ([[x0, y0, x1, y1], [x0, y0, x0, y1]], "one without width: it covers nothing"),
        "none": ([], "an empty list: no ground truth"), "fractions": ([[x0 + 0.25, y0, x1, y1]], "fractions of pixels"),
    }  # fmt: skip
    return [
        *(bad(group, f"box-{id}.png", what, png(), text, TRUTH_ERROR, row={"boxes": [[x0, y0, x1, y1], box]}) for id, (box, what, text) in wrong.items()),
        *(Case(group, f"box-{id}.png", what, png(), row={"boxes": value}) for id, (value, what) in right.items()),
    ]  # fmt: skip


def masks() -> list[Case]:
    group = "Masks"

    def case(
        id: str,
        what: str,
        content: bytes | None,
        status: str = OK,
        text: str = "",
        image: bytes | None = None,
        uri: str = "",
    ) -> Case:
        def make(path: Path) -> None:
            path.write_bytes(image or png())
            if content is not None:
                (path.parent.parent / f"masks/{id}").write_bytes(content)

        return Case(group, id, what, make, status, text, row={"mask": uri or f"masks/{id}"})

    return [
        case("mask-fine.png", "of the image's size", png(mask())),
        case("mask-colour.png", "in colour: whatever is not black", png(scene().point(lambda value: 255 * (value > 99)))),
        case("mask-empty.png", "all black: nothing to find", png(Image.new("L", (WIDTH, HEIGHT)))),
        case("mask-turned.jpg", "stored like its turned image", png(stored_as(mask(), 6)), image=oriented(6)),
        case("mask-upright.jpg", "upright, its image is stored turned", png(mask()), TRUTH_ERROR, "the mask has 48 x 32 pixels", oriented(6)),
        case("mask-small.png", "of another size", png(mask().resize((24, 16))), TRUTH_ERROR, "the mask has 24 x 16 pixels, its image is stored with 48 x 32"),
        case("mask-text.png", "a text", b"no mask", TRUTH_ERROR, "the mask cannot be decoded: not an image: it is text"),
        case("mask-cut.png", "cut short", cut(png(mask()), 60), TRUTH_ERROR, "the mask cannot be decoded"),
        case("mask-gone.png", "no such file", None, READ_ERROR, "no such file"),
        case("mask-folder.png", "a folder", None, READ_ERROR, "is a directory", uri="masks"),
        case("mask-bomb.png", "decompression bomb", bomb(50_000, 50_000), TRUTH_ERROR, "decompression bombs"),
    ]  # fmt: skip


def _touched(path: Path) -> Path:
    path.touch()
    return path


def unreadable(path: Path) -> None:
    """A file that may not be read; root may read whatever has no permissions, but not what can only be written."""
    if os.geteuid() == 0:
        path.symlink_to("/proc/sys/vm/compact_memory")
        return
    path.write_bytes(png())
    path.chmod(0)


CASES: tuple[Case, ...] = tuple(
    case
    for group in (
        cut_short,
        no_images,
        large_and_small,
        modes_and_formats,
        exif_blocks,
        damaged_inside,
        names,
        places,
        labels,
        boxes,
        masks,
    )
    for case in group()
)


def write_corpus(folder: Path) -> Path:
    """Make every file, the network's factory `corpus_net.py` and the manifest below `folder`; returns the manifest's path."""
    for name in ("files", "masks"):
        (folder / name).mkdir(parents=True)
    rows = []
    for case in CASES:
        path = folder / "files" / case.id
        if callable(case.content):
            case.content(path)
        elif case.content is not None:
            path.write_bytes(case.content)
        uri = case.uri.replace("{folder}", str(folder)) or f"files/{case.id}"
        rows.append({"id": case.id, "uri": uri, "label": 0, **case.row})
    (folder / "corpus_net.py").write_text(
        FACTORY.format(vanishing=str(folder / "files" / "vanishing.png"), classes=CLASSES)
    )
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest
