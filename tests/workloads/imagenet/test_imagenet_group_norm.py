"""BatchNorm in groups: for one group torch's own, for several each as if it were alone."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from lightball.errors import InputError
from lightball.workloads.imagenet import GroupBatchNorm2d
from lightball.workloads.imagenet.group_norm import ranks_that_share


def images(count: int) -> Tensor:
    return 3 + 2 * torch.randn(count, 5, 4, 3, generator=torch.Generator().manual_seed(count))


def with_weights(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, 5))
        norm.bias.copy_(torch.linspace(-1, 1, 5))
    return norm


def gradients(norm: nn.BatchNorm2d, x: Tensor) -> list[Tensor]:
    """Output and gradients of a loss that is no multiple of the sum of squares, to which BatchNorm is blind."""
    x = x.clone().requires_grad_()
    out = norm(x)
    return [out, *torch.autograd.grad((out**3 + x.detach() * out).mean(), [x, norm.weight, norm.bias])]


@pytest.mark.parametrize("count", [32, 20, 2])
def test_one_group_is_torchs_own(count: int) -> None:
    ours, torchs = with_weights(GroupBatchNorm2d(5, 32)), with_weights(nn.BatchNorm2d(5))
    for step in range(3):
        x = images(count) + step
        for mine, other in zip(gradients(ours, x), gradients(torchs, x), strict=True):
            assert torch.equal(mine, other)
        ours.settle()
    for name, value in torchs.state_dict().items():
        assert torch.allclose(ours.state_dict()[name], value), name
    ours.eval(), torchs.eval()
    assert torch.allclose(ours(x), torchs(x), atol=1e-5)


def test_each_group_is_normalised_as_if_alone_and_the_running_statistics_move_once() -> None:
    x = images(24)
    norm = with_weights(GroupBatchNorm2d(5, 8))
    alone = [with_weights(nn.BatchNorm2d(5)) for _ in range(3)]
    outputs = [part(y) for part, y in zip(alone, x.split(8), strict=True)]

    assert torch.equal(norm(x), torch.cat(outputs))
    assert not norm.running_mean.any()
    norm.settle()

    for name in ("running_mean", "running_var"):
        assert torch.allclose(getattr(norm, name), torch.stack([getattr(a, name) for a in alone]).mean(dim=0))
    assert norm.num_batches_tracked == 1
    before = deepcopy(norm.state_dict())
    norm.settle()  # with nothing seen since
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


def test_micro_batches_give_what_the_whole_batch_gives() -> None:
    x = images(32)
    whole, parts = with_weights(GroupBatchNorm2d(5, 8)), with_weights(GroupBatchNorm2d(5, 8))
    assert torch.equal(whole(x), torch.cat([parts(y) for y in x.split(16)]))
    whole.settle(), parts.settle()
    assert torch.allclose(whole.running_var, parts.running_var)
    assert parts.num_batches_tracked == 1


def test_statistics_can_be_left_alone() -> None:
    norm = GroupBatchNorm2d(5, 8)
    norm.track_running_stats = False  # as for the second half of a step of SVAG
    out = norm(images(16))
    norm.track_running_stats = True
    norm.settle()
    assert out.mean().abs() < 1e-5
    assert norm.num_batches_tracked == 0
    assert (norm.running_var == 1).all()


def test_looking_at_it_in_eval_mode_changes_nothing() -> None:
    norm = GroupBatchNorm2d(5, 8).eval()
    before = {name: value.clone() for name, value in norm.named_buffers()}
    norm(images(13))
    assert all(torch.equal(value, before[name]) for name, value in norm.named_buffers())


@pytest.mark.parametrize(
    ("samples", "group", "ranks", "sharing"),
    [(64, 32, 1, 1), (7, 32, 1, 1), (32, 32, 4, 1), (16, 32, 2, 2), (8, 32, 8, 4), (4, 32, 2, 2), (1, 32, 64, 32)],
)
def test_how_many_ranks_share_a_group(samples: int, group: int, ranks: int, sharing: int) -> None:
    assert ranks_that_share(samples, group, ranks) == sharing


@pytest.mark.parametrize(("samples", "ranks"), [(48, 1), (33, 1), (24, 2), (16, 3), (48, 2)])
def test_what_is_not_whole_groups_is_refused(samples: int, ranks: int) -> None:
    expected = rf"^a micro-batch of {samples * ranks} images on {ranks} process.* groups of 32 for BatchNorm: choose"
    with pytest.raises(InputError, match=expected):
        ranks_that_share(samples, 32, ranks)
    if ranks == 1:
        with pytest.raises(InputError, match=expected):
            GroupBatchNorm2d(5, 32)(images(samples))


def test_bfloat16_is_normalised_by_float32_statistics() -> None:
    norm = GroupBatchNorm2d(5, 8)
    x = images(16).bfloat16()
    out = norm(x)
    norm.settle()
    assert out.dtype == torch.bfloat16
    assert norm.running_mean.dtype == torch.float32
    assert torch.allclose(norm.running_mean, 0.1 * x.float().mean(dim=(0, 2, 3)), atol=1e-3)


def test_compiles_without_a_break() -> None:
    norm = GroupBatchNorm2d(5, 8)
    plain = deepcopy(norm)
    out = torch.compile(norm, fullgraph=True, backend="eager")(images(16))
    assert torch.equal(out, plain(images(16)))
    assert torch.equal(norm.pending_mean, plain.pending_mean)
