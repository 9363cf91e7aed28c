"""Residual networks for large images: He et al. 2016 (arXiv:1512.03385), started as by Goyal et al. (1706.02677)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from lightball.errors import InputError
from lightball.workloads.imagenet.group_norm import GroupBatchNorm2d

if TYPE_CHECKING:
    from jaxtyping import Float

_BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
_WIDTHS = (64, 128, 256, 512)


class ResNet(nn.Module):
    """ResNet-50 of bottleneck blocks, or ResNet-18 of plain ones; 25,557,032 and 11,689,512 parameters at 1000 classes.

    A block halves the image in its 3 × 3 convolution, as is usual ("v1.5"), and the scale of its last BatchNorm starts
    at 0, so that it starts as the identity. Convolutions start from He's normal distribution (fan out), the linear
    layer from N(0, 0.01²) with bias 0.

    Args:
        depth: 50 or 18.
        num_classes: of the linear layer.
        bn_group: samples that BatchNorm normalises together, see :class:`GroupBatchNorm2d`.

    Shapes: ``[example, 3, row, column]`` to ``[example, class]``.

    Raises:
        InputError: another depth.
    """

    def __init__(self, depth: int = 50, num_classes: int = 1000, bn_group: int = 32) -> None:
        counts = num_blocks(depth)
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
            GroupBatchNorm2d(64, bn_group),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        blocks: list[nn.Module] = []
        channels = 64
        for stage, (width, count) in enumerate(zip(_WIDTHS, counts, strict=True)):
            for number in range(count):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(Block(channels, width, stride, bn_group, bottleneck=depth == 50))
                channels = width * (4 if depth == 50 else 1)
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, num_classes)
        self._initialise()

    def forward(self, images: Float[Tensor, "example 3 row column"]) -> Float[Tensor, "example class"]:
        """The logits."""
        logits: Tensor = self.head(self.blocks(self.stem(images)).mean(dim=(2, 3)))
        return logits

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Block):
                nn.init.zeros_(module.last_norm.weight)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)


def num_blocks(depth: int) -> tuple[int, ...]:
    """The number of blocks in each stage.

    Raises:
        InputError: another depth than 18 or 50.
    """
    if depth not in _BLOCKS:
        raise InputError(f"depth is {depth}, but must be {' or '.join(map(str, sorted(_BLOCKS)))}")
    return _BLOCKS[depth]


class Block(nn.Module):
    """Two 3 × 3 convolutions, or a 3 × 3 between two 1 × 1 that narrow to ``width`` and widen fourfold, and a shortcut.

    The shortcut has a 1 × 1 convolution with BatchNorm where the shape changes.
    """

    def __init__(self, channels: int, width: int, stride: int, bn_group: int, *, bottleneck: bool) -> None:
        super().__init__()
        out = 4 * width if bottleneck else width
        # kernel, stride and channels of each convolution
        plan = [(1, 1, width), (3, stride, width), (1, 1, out)] if bottleneck else [(3, stride, width), (3, 1, width)]
        layers: list[nn.Module] = []
        entering = channels
        for kernel, step, leaving in plan:
            layers += [*_convolution(entering, leaving, kernel, step, bn_group), nn.ReLU(inplace=True)]
            entering = leaving
        self.body = nn.Sequential(*layers[:-1])
        self.shortcut = (
            nn.Sequential(*_convolution(channels, out, 1, stride, bn_group))
            if stride > 1 or channels != out
            else nn.Identity()
        )

    @property
    def last_norm(self) -> GroupBatchNorm2d:
        """The BatchNorm before the sum."""
        norm = self.body[-1]
        assert isinstance(norm, GroupBatchNorm2d)
        return norm

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.shortcut(x) + self.body(x))


def _convolution(channels: int, out: int, kernel: int, stride: int, bn_group: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, out, kernel, stride=stride, padding=kernel // 2, bias=False)
    return [convolution, GroupBatchNorm2d(out, bn_group)]
