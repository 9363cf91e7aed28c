"""The residual network is the published one, and computes what another implementation does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightball.errors import InputError
from lightball.workloads.imagenet import GroupBatchNorm2d, ResNet


@pytest.mark.parametrize(("depth", "published"), [(50, 25_557_032), (18, 11_689_512)])
def test_has_the_published_number_of_parameters(depth: int, published: int) -> None:
    assert sum(p.numel() for p in ResNet(depth).parameters()) == published


def in_order(model: Any) -> Iterator[nn.Module]:
    """Convolutions, norms and the linear layer of transformers' ResNet in the order of ours."""
    embedder = model.resnet.embedder.embedder
    yield from (embedder.convolution, embedder.normalization)
    for stage in model.resnet.encoder.stages:
        for block in stage.layers:
            for layer in block.layer:
                yield from (layer.convolution, layer.normalization)
            if not isinstance(block.shortcut, nn.Identity):
                yield from (block.shortcut.convolution, block.shortcut.normalization)
    yield model.classifier[1]


def both(depth: int, group: int) -> tuple[nn.Module, nn.Module]:
    """Ours and transformers', with equal weights, all drawn."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        depths=[3, 4, 6, 3] if depth == 50 else [2, 2, 2, 2],
        hidden_sizes=[256, 512, 1024, 2048] if depth == 50 else [64, 128, 256, 512],
        layer_type="bottleneck" if depth == 50 else "basic",
        num_labels=7,
    )
    torch.manual_seed(0)
    theirs, ours = transformers.ResNetForImageClassification(config), ResNet(depth, 7, group)
    layers = [m for m in ours.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d | nn.Linear)]
    for mine, other in zip(layers, in_order(theirs), strict=True):
        for name, value in mine.state_dict().items():
            if value.is_floating_point():
                drawn = 0.5 + torch.rand_like(value) if isinstance(mine, nn.BatchNorm2d) else value
                value.copy_(drawn)
                other.state_dict()[name].copy_(drawn)
    return ours, theirs


@pytest.mark.parametrize(("depth", "training"), [(18, True), (50, True), (50, False)])
def test_agrees_with_transformers(depth: int, training: bool) -> None:
    ours, theirs = both(depth, group=4)
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    ours.train(training), theirs.train(training)
    ours, theirs, images = ours.double(), theirs.double(), images.double()

    mine, other = ours(images), theirs(images).logits

    assert torch.allclose(mine, other, rtol=1e-9, atol=1e-9)
    mine.square().sum().backward()
    other.square().sum().backward()
    one, two = ours.stem[0].weight.grad, theirs.resnet.embedder.embedder.convolution.weight.grad
    assert isinstance(one, Tensor)
    assert torch.allclose(one, two, rtol=1e-6, atol=1e-9 * two.abs().max())
    for module in ours.modules():
        if isinstance(module, GroupBatchNorm2d):
            module.settle()
    buffers = zip(
        [m for m in ours.modules() if isinstance(m, nn.BatchNorm2d)],
        [m for m in in_order(theirs) if isinstance(m, nn.BatchNorm2d)],
        strict=True,
    )
    for mine_norm, their_norm in buffers:
        assert torch.allclose(mine_norm.running_mean, their_norm.running_mean)
        assert torch.allclose(mine_norm.running_var, their_norm.running_var)


def test_starts_as_goyal_et_al_say() -> None:
    torch.manual_seed(0)
    model = ResNet(50)
    norms = [m for m in model.modules() if isinstance(m, GroupBatchNorm2d)]
    zero = [m for m in norms if not m.weight.any()]
    assert len(norms) == 53
    assert zero == [block.last_norm for block in model.blocks]
    assert all((m.weight == 1).all() for m in norms if m not in zero)
    assert model.head.weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert not model.head.bias.any()
    widest = model.blocks[-1].body[3]
    assert widest.kernel_size == (3, 3)
    assert widest.weight.std().item() == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.01)


def test_another_depth_is_refused() -> None:
    with pytest.raises(InputError, match=r"^depth is 34, but must be 18 or 50$"):
        ResNet(34)
