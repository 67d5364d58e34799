"""A contact sheet of a dataset: a few training samples of a few classes, so that a person sees what was read."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from core.data.canonical import open_canonical
from core.data.report import DatasetReport

CLASSES = 10
SAMPLES = 10
_THUMB, _GAP, _NAME, _TEXT = 56, 4, 132, 13


def write_preview(dataset: Path, out: Path) -> bool:
    """Draw the dataset in canonical form as a PNG at `out`: a row a class, its name to the left. False for vectors, which are no pictures.

    Of more than ten classes ten are shown, evenly spread over all. A set without labels fills the rows with samples spread over the split.
    """
    report, arrays = open_canonical(dataset)
    if len(report.input) != 3:
        return False
    rows = _rows(report, arrays.get("train.y"))
    width = (_NAME if report.labelled else _GAP) + SAMPLES * (_THUMB + _GAP)
    sheet = Image.new("RGB", (width, _GAP + len(rows) * (_THUMB + _GAP)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT)
    for row, (name, samples) in enumerate(rows):
        top, left = _GAP + row * (_THUMB + _GAP), _NAME if report.labelled else _GAP
        draw.text((_GAP, top + _THUMB // 2), _fitted(name, font), "black", font, anchor="lm")
        for column, sample in enumerate(samples):
            thumb = _thumb(arrays["train.x"][sample], report)
            spare = (_THUMB - thumb.width) // 2, (_THUMB - thumb.height) // 2
            sheet.paste(thumb, (left + column * (_THUMB + _GAP) + spare[0], top + spare[1]))
    sheet.save(out, "PNG")
    return True


def _rows(report: DatasetReport, labels: NDArray[np.int64] | None) -> list[tuple[str, list[int]]]:
    """(name, places in the training split) of every row of the sheet."""
    if labels is None:
        shown = _spread(report.counts["train"], CLASSES * SAMPLES)
        return [("", shown[at : at + SAMPLES]) for at in range(0, len(shown), SAMPLES)]
    return [
        (report.class_names[label], [int(own[k]) for k in _spread(len(own), SAMPLES)])
        for label in _spread(report.classes, CLASSES)
        for own in [np.flatnonzero(labels == label)]
    ]


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of range(count), evenly spread."""
    return [int(k) for k in np.linspace(0, count - 1, min(count, most)).round()]


def _thumb(sample: NDArray[np.generic], report: DatasetReport) -> Image.Image:
    """One stored sample (H, W, C) as a picture as large as the thumb; of two channels the first is seen, of more than three three."""
    if report.dtype == "float32":
        least, greatest = report.range
        sample = ((sample.astype(np.float64) - least) * (255 / max(greatest - least, 1e-12))).round().clip(0, 255).astype(np.uint8)
    pixels = sample[..., 0] if sample.shape[-1] < 3 else sample[..., :3]
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    scale = _THUMB / max(picture.size)
    size = tuple(max(1, round(side * scale)) for side in picture.size)
    return picture.resize((size[0], size[1]), Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX).convert("RGB")


def _fitted(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The name in one line, cut where there is no more room for it."""
    name = " ".join(name.split())[:80]
    while font.getlength(name) > _NAME - 3 * _GAP:
        name = name.removesuffix("…")[:-1] + "…"
    return name
