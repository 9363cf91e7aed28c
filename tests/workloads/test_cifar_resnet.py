import pytest
import torch

from lightball import InputError
from lightball.workloads.resnet import CifarResNet


# The paper's table 6: 0.27, 0.46, 0.66, 0.85 million (and 1.7 for 110).
@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_parameter_counts_are_the_published_ones(depth, millions):
    count = sum(p.numel() for p in CifarResNet(depth).parameters())

    assert count == pytest.approx(1e6 * millions, rel=0.03)
    assert f"{count / 1e6:.{len(str(millions)) - 2}f}" == str(millions)


def test_shortcuts_take_every_second_pixel_and_add_no_parameter():
    model = CifarResNet(8).eval()
    second_stage = model.features[4]
    torch.nn.init.zeros_(second_stage.body[3].weight)  # its body gives 0, so that the shortcut is left
    x = torch.rand(2, 16, 32, 32)

    out = second_stage(x)

    assert out.shape == (2, 32, 16, 16)
    assert torch.equal(out[:, :16], x[:, :, ::2, ::2])
    assert not out[:, 16:].any()


def test_depth_is_the_number_of_layers_with_weights():
    model = CifarResNet(32)

    assert sum(isinstance(m, torch.nn.Conv2d | torch.nn.Linear) for m in model.modules()) == 32


def test_options_of_the_published_svag_code():
    model = CifarResNet(20, affine=False, frozen_head=True)

    assert not any(isinstance(m, torch.nn.BatchNorm2d) and m.affine for m in model.modules())
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["head.weight", "head.bias"]


@pytest.mark.parametrize("depth", [2, 18, 33])
def test_a_depth_that_is_none_is_refused(depth):
    with pytest.raises(InputError, match=f"depth is {depth}, but must be 6n \\+ 2"):
        CifarResNet(depth)
