"""Residual networks for 32 × 32 images, as He et al. 2016 describe them (arXiv:1512.03385, §4.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from lightball.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float

_WIDTHS = (16, 32, 64)


class CifarResNet(nn.Module):
    """ResNet-(6n + 2): a convolution, three stages of n blocks at 16, 32 and 64 channels, pooling, a linear layer.

    Shortcuts have no parameters: where a stage halves the image, every second pixel is taken and the new channels are
    0 (option A). Convolutions start from He's normal distribution. ResNet-32 has 464,154 parameters.

    Args:
        depth: 6n + 2, such as 20, 32 or 56.
        num_classes: of the linear layer.
        affine: whether BatchNorm has a scale and a shift; the published SVAG code leaves them out.
        frozen_head: keep the linear layer as it was drawn, as that code does.

    Shapes: ``[example, 3, 32, 32]`` to ``[example, class]``.

    Raises:
        InputError: a depth that is not 6n + 2.
    """

    def __init__(
        self, depth: int = 32, num_classes: int = 10, *, affine: bool = True, frozen_head: bool = False
    ) -> None:
        if depth < 8 or (depth - 2) % 6:
            raise InputError(f"depth is {depth}, but must be 6n + 2 for n ≥ 1 blocks in a stage, such as 20 or 32")
        super().__init__()
        stem, channels = nn.Conv2d(3, _WIDTHS[0], 3, padding=1, bias=False), _WIDTHS[0]
        layers: list[nn.Module] = [stem, nn.BatchNorm2d(channels, affine=affine), nn.ReLU()]
        for width in _WIDTHS:
            for _ in range((depth - 2) // 6):
                layers.append(_Block(channels, width, affine))
                channels = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if frozen_head:
            self.head.requires_grad_(False)

    def forward(self, images: Float[Tensor, "example 3 32 32"]) -> Float[Tensor, "example class"]:
        """The logits."""
        logits: Tensor = self.head(self.features(images).mean(dim=(2, 3)))
        return logits


class _Block(nn.Module):
    """Two 3 × 3 convolutions beside a shortcut."""

    def __init__(self, channels: int, width: int, affine: bool) -> None:
        super().__init__()
        self.stride = width // channels
        self.new_channels = width - channels
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=self.stride, padding=1, bias=False),
            nn.BatchNorm2d(width, affine=affine),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width, affine=affine),
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x[:, :, :: self.stride, :: self.stride]
        if self.new_channels:
            shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, 0, self.new_channels))
        return nn.functional.relu(shortcut + self.body(x))
