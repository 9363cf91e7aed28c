"""From the bytes of an image file to the pixels that a network sees: the middle, or a random part."""

from __future__ import annotations

import io
import math
import warnings
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from lightball.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from PIL.Image import Image, Transpose

_AREAS = (0.08, 1.0)
_ASPECTS = (3 / 4, 4 / 3)
_ATTEMPTS = 10
_MIDDLE = 224 / 256  # of the shorter side, in evaluation
_ORIENTATION = 0x0112  # the Exif tag


@dataclass(frozen=True)
class Part:
    """A rectangle of an image, in pixels, and whether it is mirrored."""

    left: float
    top: float
    width: float
    height: float
    mirrored: bool = False


def middle(width: int, height: int) -> Part:
    """The square in the middle that is left where the shorter side is made 256/224 of the size and cropped to it."""
    side = _MIDDLE * min(width, height)
    return Part((width - side) / 2, (height - side) / 2, side, side)


def random_part(width: int, height: int, seed: int) -> Part:
    """8 to 100 % of the area, 3:4 to 4:3, anywhere, mirrored or not: a function of the seed and the shape.

    The area is uniform, the aspect log-uniform. Where none of ten draws fits, as in a very long image, the largest
    part in the middle that has such an aspect.
    """
    random = Random(seed)
    mirrored = random.random() < 0.5
    for _ in range(_ATTEMPTS):
        area = width * height * random.uniform(*_AREAS)
        aspect = math.exp(random.uniform(*map(math.log, _ASPECTS)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return Part(random.randint(0, width - w), random.randint(0, height - h), w, h, mirrored)
    w, h = min(width, round(height * _ASPECTS[1])), min(height, round(width / _ASPECTS[0]))
    return Part((width - w) // 2, (height - h) // 2, w, h, mirrored)


def pixels_of(content: bytes, size: int, seed: int | None) -> UInt8[np.ndarray, "size size 3"]:
    """A part of an image, scaled to ``size``: a random one by a seed, or the middle for None.

    Images are seen as a viewer shows them: in colour, without transparency, turned as their Exif data say. A JPEG
    of which few pixels are needed is decoded at a half, a quarter or an eighth of its resolution.

    Raises:
        Exception: of any kind, where the bytes are no image.
        InputError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise InputError("images need Pillow: pip install 'lightball[images]'") from error
    with warnings.catch_warnings():  # of odd but readable files
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(content)) as image:
            turn = _turn(image)
            width, height = image.size[::-1] if _lies(turn) else image.size
            part = middle(width, height) if seed is None else random_part(width, height, seed)
            # In evaluation twice the resolution, so that no difference is seen.
            _draft(image, (2 if seed is None else 1) * size / min(part.width, part.height))
            seen = _in_colour(image)
            if turn is not None:
                seen = seen.transpose(turn)
            across, down = seen.width / width, seen.height / height
            right, bottom = (part.left + part.width) * across, (part.top + part.height) * down
            box = (part.left * across, part.top * down, min(right, seen.width), min(bottom, seen.height))
            seen = seen.resize((size, size), Image.Resampling.BILINEAR, box=box)
            if part.mirrored:
                seen = seen.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            return np.asarray(seen)


def _draft(image: Image, scale: float) -> None:
    """Let a JPEG be decoded at a lower resolution, but at least at ``scale``."""
    if scale < 1:
        image.draft("RGB", (math.ceil(image.width * scale), math.ceil(image.height * scale)))


def _in_colour(image: Image) -> Image:
    from PIL import Image

    if image.mode.startswith("I;16"):  # which Pillow would cut off at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")


def _lies(turn: Transpose | None) -> bool:
    """Whether the turn makes rows of columns."""
    from PIL.Image import Transpose

    return turn in (Transpose.TRANSPOSE, Transpose.ROTATE_270, Transpose.TRANSVERSE, Transpose.ROTATE_90)


def _turn(image: Image) -> Transpose | None:
    """What turns an image upright."""
    from PIL.Image import Transpose

    turns = (
        *(Transpose.FLIP_LEFT_RIGHT, Transpose.ROTATE_180, Transpose.FLIP_TOP_BOTTOM, Transpose.TRANSPOSE),
        *(Transpose.ROTATE_270, Transpose.TRANSVERSE, Transpose.ROTATE_90),
    )
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged Exif data, on which Pillow raises errors of many kinds
        return None
    return turns[orientation - 2] if orientation in range(2, 9) else None
