import pytest
import torch

from lightball.workloads.image_layers import CropAndFlip, Standardise, shifted


def literal(image, top, left, mirrored, padding):
    """One image, pixel by pixel."""
    _, height, width = image.shape
    out = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            r, c = row + top - padding, column + left - padding
            if 0 <= r < height and 0 <= c < width:
                out[:, row, width - 1 - column if mirrored else column] = image[:, r, c]
    return out


def test_crops_are_those_of_a_literal_loop():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (12, 3, 6, 5), dtype=torch.uint8, generator=generator)
    tops, lefts = torch.randint(5, (2, 12), generator=generator)
    mirrored = torch.randint(2, (12,), generator=generator).bool()

    found = shifted(images, tops, lefts, mirrored, padding=2)

    expected = [
        literal(i, int(t), int(le), bool(m), 2) for i, t, le, m in zip(images, tops, lefts, mirrored, strict=True)
    ]
    assert torch.equal(found, torch.stack(expected))
    assert found.dtype == torch.uint8


def test_all_shifts_and_mirrors_come_equally_often():
    torch.manual_seed(0)
    image = torch.arange(1, 10).reshape(1, 1, 3, 3)
    count = 9 * 2 * 400

    drawn = CropAndFlip(1).train()(image.expand(count, 1, 3, 3))

    _, times = torch.unique(drawn.flatten(1), dim=0, return_counts=True)
    assert len(times) == 18
    # χ² with 17 degrees of freedom exceeds 40.8 once in a thousand seeds
    assert ((times - 400) ** 2 / 400).sum() < 40.8


def test_a_seed_gives_the_same_crops_again_and_eval_mode_none():
    images, layer = torch.rand(50, 3, 8, 8), CropAndFlip()
    torch.manual_seed(3)
    first = layer(images)
    torch.manual_seed(3)
    again, other = layer(images), layer(images)

    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert layer.eval()(images) is images


def test_bytes_become_numbers_of_mean_0_and_variance_1():
    images = torch.randint(256, (64, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = (images / 255).mean((0, 2, 3)), (images / 255).std((0, 2, 3))

    out = Standardise(mean.tolist(), std.tolist())(images)

    assert out.dtype == torch.float32
    assert out.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert out.std((0, 2, 3)).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
