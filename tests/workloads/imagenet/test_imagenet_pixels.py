"""What a network sees of an image: the right part, the right way up, in colour."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
from made_images import encoded, photograph

from lightball.workloads.imagenet.pixels import middle, pixels_of, random_part

Image = pytest.importorskip("PIL.Image")


def close(one: np.ndarray, other: np.ndarray, most: float = 6.0) -> bool:
    return float(np.abs(one.astype(float) - other.astype(float)).mean()) < most


@pytest.mark.parametrize(("width", "height"), [(500, 375), (80, 300), (64, 64)])
def test_the_middle_is_that_of_scaling_to_256_and_cropping_224(width: int, height: int) -> None:
    image = photograph(3, width, height)
    scale = 256 / min(width, height)
    scaled = image.resize((round(width * scale), round(height * scale)), Image.BILINEAR)
    left, top = (scaled.width - 224) // 2, (scaled.height - 224) // 2
    usual = np.asarray(scaled.crop((left, top, left + 224, top + 224)))

    seen = pixels_of(encoded(image, "PNG"), 224, None)

    assert seen.shape == (224, 224, 3)
    assert seen.dtype == np.uint8
    assert close(seen, usual, 2.0)


def test_random_parts_have_the_drawn_areas_and_aspects() -> None:
    parts = [random_part(500, 375, seed) for seed in range(2000)]
    areas = np.array([p.width * p.height / (500 * 375) for p in parts])
    aspects = np.array([p.width / p.height for p in parts])

    assert areas.min() == pytest.approx(0.08, abs=0.01)
    assert areas.max() > 0.97
    small = areas[areas < 0.5]  # which fit with any aspect, and so are uniform
    assert small.mean() == pytest.approx(0.29, abs=0.01)
    assert aspects.min() > 0.74
    assert aspects.max() < 1.35
    assert abs(np.log(aspects[areas < 0.5]).mean()) < 0.02
    assert all(0 <= p.left <= 500 - p.width and 0 <= p.top <= 375 - p.height for p in parts)
    assert np.mean([p.mirrored for p in parts]) == pytest.approx(0.5, abs=0.04)
    assert random_part(500, 375, 7) == parts[7]


@pytest.mark.parametrize(("width", "height"), [(1000, 10), (10, 1000), (1, 1), (3, 1)])
def test_of_a_very_long_image_the_middle_is_taken(width: int, height: int) -> None:
    part = random_part(width, height, seed=1)
    assert 0 <= part.left <= part.left + part.width <= width
    assert 0 <= part.top <= part.top + part.height <= height
    assert part.width >= 1
    assert part.height >= 1
    assert pixels_of(encoded(photograph(1, width, height), "PNG"), 32, 1).shape == (32, 32, 3)


def test_a_random_part_is_cut_out_and_mirrored() -> None:
    image = photograph(5, 400, 300)
    seeds = [next(s for s in range(20) if random_part(400, 300, s).mirrored is wanted) for wanted in (True, False)]
    for seed in seeds:
        part = random_part(400, 300, seed)
        cut = image.crop((part.left, part.top, part.left + part.width, part.top + part.height))
        cut = cut.resize((64, 64), Image.BILINEAR)
        expected = np.asarray(cut)[:, ::-1] if part.mirrored else np.asarray(cut)
        assert close(pixels_of(encoded(image, "PNG"), 64, seed), expected, 1.0)


@pytest.mark.parametrize("seed", [None, 3])
def test_a_large_jpeg_looks_the_same_decoded_at_a_lower_resolution(seed: int | None) -> None:
    draw = np.random.default_rng(0)
    pattern = Image.fromarray(draw.integers(256, size=(75, 100, 3), dtype=np.uint8))
    image = pattern.resize((2000, 1500), Image.BICUBIC)
    seen = pixels_of(encoded(image, quality=95), 224, seed)
    assert close(seen, pixels_of(encoded(image, "PNG"), 224, seed), 2.0)


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_image_upright(orientation: int, seed: int | None) -> None:
    upright = photograph(6, 160, 120)
    # How the sensor saw it: the inverse of what a viewer does.
    seen = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright.transpose(seen[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert close(
        pixels_of(encoded(stored, exif=exif, quality=98), 48, seed),
        pixels_of(encoded(upright, quality=98), 48, seed),
        3,
    )


def rgb(image: Any, form: str = "PNG", **options: Any) -> np.ndarray:
    return pixels_of(encoded(image, form, **options), 32, None)


def test_every_kind_of_file_becomes_colours() -> None:
    image = photograph(4)
    colours = rgb(image)
    assert close(rgb(image, "JPEG", quality=95), colours)
    assert close(rgb(image.convert("CMYK"), "JPEG", quality=95), colours)
    assert close(rgb(image.convert("RGBA")), colours, 0.1)
    assert close(rgb(image.quantize(256)), colours, 12)
    assert close(rgb(image, "WEBP", quality=95), colours)
    grey = rgb(image.convert("L"), "JPEG", quality=95)
    assert close(grey, np.repeat(np.asarray(colours.mean(axis=2, keepdims=True)), 3, axis=2), 12)
    assert np.ptp(grey, axis=2).max() == 0
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    assert close(rgb(deep), grey)
    assert set(np.unique(rgb(Image.new("1", (40, 40), 1)))) == {255}


def test_odd_exif_data_are_no_reason_to_fail() -> None:
    image = photograph(4)
    plain = rgb(image, "JPEG", quality=95)
    for exif in (b"Exif\x00\x00garbage", b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x02", b"\xff" * 50):
        assert np.array_equal(rgb(image, "JPEG", quality=95, exif=exif), plain)


@pytest.mark.parametrize("keep", [0.0, 0.2, 0.7])
def test_what_is_cut_off_fails(keep: float) -> None:
    content = encoded(photograph(1, 200, 150), quality=90)
    with pytest.raises(Exception, match=r"(?i)truncated|identify"):
        pixels_of(content[: int(keep * len(content))], 64, None)


def test_seeds_change_what_is_seen_and_the_name_of_a_file_does_not() -> None:
    content = encoded(photograph(9), "PNG")
    assert not np.array_equal(pixels_of(content, 32, 1), pixels_of(content, 32, 2))
    with Image.open(io.BytesIO(content)) as image:
        assert math.isclose(middle(*image.size).width, 54 * 0.875)
