"""Layers before a network for images: pixels become numbers, and training sees crops and mirror images.

They are part of the model, so that they run on its device in whole batches, draw from the generators that are seeded
for a run (both rules of a pair see the same crops), and rest in eval mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Float, Shaped, UInt8


class Standardise(nn.Module):
    """Bytes 0 to 255 to (value/255 − mean)/std, for each channel, in float32."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for name, value in (("mean", mean), ("std", std)):
            self.register_buffer(name, 255 * torch.tensor(value)[:, None, None], persistent=False)

    def forward(self, images: UInt8[Tensor, "example channel row column"]) -> Float[Tensor, "..."]:
        """The standardised images."""
        return (images - self.mean) / self.std


class ChannelsLast(nn.Module):
    """The same images with the channels of a pixel side by side in memory, as GPUs convolve fastest."""

    def forward(self, images: Float[Tensor, "example channel row column"]) -> Float[Tensor, "..."]:
        """The images."""
        return images.contiguous(memory_format=torch.channels_last)


class CropAndFlip(nn.Module):
    """In train mode, each image shifted by up to ``padding`` pixels each way, and half of them mirrored.

    Zeros come in at the border. Draws three numbers for each image from the global generator of the images' device.
    """

    def __init__(self, padding: int = 4) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, images: Shaped[Tensor, "example channel row column"]) -> Shaped[Tensor, "..."]:
        """The images, or in train mode those that were drawn."""
        if not self.training:
            return images
        count = len(images)
        tops, lefts = torch.randint(2 * self.padding + 1, (2, count), device=images.device)
        mirrored = torch.randint(2, (count,), device=images.device).bool()
        return shifted(images, tops, lefts, mirrored, self.padding)


def shifted(images: Tensor, tops: Tensor, lefts: Tensor, mirrored: Tensor, padding: int) -> Tensor:
    """Of each image, framed by ``padding`` zeros, the part from row ``top`` and column ``left`` on, mirrored or not."""
    count, channels, height, width = images.shape
    padded = nn.functional.pad(images, (padding,) * 4)
    rows = tops[:, None] + torch.arange(height, device=images.device)
    columns = lefts[:, None] + torch.arange(width, device=images.device)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    example = torch.arange(count, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[None, :, None, None]
    return padded[example, channel, rows[:, None, :, None], columns[:, None, None, :]]
