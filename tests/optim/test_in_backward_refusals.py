"""What cannot work in backward is refused in one line, with the real GradScaler, gloo and checkpointing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightball.errors import InputError
from lightball.optim import in_backward_limits
from lightball.optim.sgd import SGD


def linear() -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Linear(3, 3)


def loss_of(model: nn.Module) -> Tensor:
    return model(torch.ones(2, 3)).pow(2).sum()


def test_a_grad_scaler_in_the_process_is_refused_when_made() -> None:
    scaler = torch.amp.GradScaler("cpu")
    with pytest.raises(InputError, match=r"in_backward=True with a GradScaler.*autocast to bfloat16"):
        SGD(linear().parameters(), in_backward=True)
    assert scaler.is_enabled()


def test_a_grad_scaler_made_later_is_refused_before_anything_moves() -> None:
    model = linear()
    optimizer = SGD(model.parameters(), in_backward=True)
    scaler = torch.amp.GradScaler("cpu")
    before = model.weight.detach().clone()
    with pytest.raises(InputError, match="with a GradScaler"):
        scaler.scale(loss_of(model)).backward()
    assert torch.equal(model.weight, before)
    with pytest.raises(InputError, match="with a GradScaler"):
        scaler.step(optimizer)


@pytest.mark.parametrize("kind", [torch.amp.GradScaler, type("Derived", (torch.amp.GradScaler,), {})])
def test_a_grad_scaler_made_in_the_middle_of_a_run_is_refused_before_anything_moves(kind: Any) -> None:
    model = linear()
    optimizer = SGD(model.parameters(), in_backward=True)
    for _ in range(2):
        loss_of(model).backward()
        optimizer.step()
    scaler = kind("cpu")
    before = model.weight.detach().clone()
    with pytest.raises(InputError, match="with a GradScaler"):
        scaler.scale(loss_of(model)).backward()
    assert torch.equal(model.weight, before)


def test_a_step_does_not_look_through_all_objects_for_scalers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = linear()
    optimizer = SGD(model.parameters(), in_backward=True)
    monkeypatch.setattr(in_backward_limits, "_has_grad_scaler", lambda: pytest.fail("looked"))
    for _ in range(3):
        loss_of(model).backward()
        optimizer.step()


def test_a_group_that_is_refused_leaves_no_hook() -> None:
    first, second = linear(), linear()
    optimizer = SGD(first.parameters(), in_backward=True)
    before = second.weight.detach().clone()
    with pytest.raises(InputError, match="float16 parameters"):
        optimizer.add_param_group({"params": [second.weight, nn.Parameter(torch.ones(2).half())]})
    optimizer.add_param_group({"params": [second.bias]})
    second(first(torch.ones(2, 3))).sum().backward()
    assert second.weight.grad is not None
    assert second.bias.grad is None
    assert torch.equal(second.weight, before)


def test_grad_scalers_that_are_disabled_or_gone_do_not_count() -> None:
    disabled = torch.amp.GradScaler("cpu", enabled=False)
    gone = torch.amp.GradScaler("cpu")
    gone.myself = gone  # type: ignore[attr-defined]  # only the garbage collector will find it
    del gone
    model = linear()
    optimizer = SGD(model.parameters(), in_backward=True)
    disabled.scale(loss_of(model)).backward()
    disabled.step(optimizer)
    assert model.weight.grad is None


def test_float16_parameters() -> None:
    with pytest.raises(InputError, match=r"in_backward=True with float16 parameters.*use bfloat16 or float32"):
        SGD(linear().half().parameters(), in_backward=True)


@pytest.mark.parametrize("name", ["differentiable", "foreach"])
def test_paths_that_need_all_gradients(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}=True with in_backward=True"):
        SGD(linear().parameters(), in_backward=True, **{name: True})  # type: ignore[arg-type]


def test_accumulating_needs_in_backward() -> None:
    with pytest.raises(InputError, match=r"accumulating\(\) is for in_backward=True"):
        SGD(linear().parameters()).accumulating()


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True")
def test_create_graph() -> None:
    model = linear()
    optimizer = SGD(model.parameters(), in_backward=True)
    before = model.weight.detach().clone()
    with pytest.raises(InputError, match=r"backward\(create_graph=True\) with in_backward=True"):
        loss_of(model).backward(create_graph=True)
    assert torch.equal(model.weight, before)
    model.zero_grad()
    assert optimizer.step() is None


def test_a_second_backward_before_step() -> None:
    model = linear()
    optimizer = SGD(model.parameters(), in_backward=True)
    loss_of(model).backward()
    with pytest.raises(InputError, match=r"of shape \(3,\) got a second gradient before step\(\).*accumulating"):
        loss_of(model).backward()
    with pytest.warns(UserWarning, match="with in_backward=True it has moved 2 parameters"):
        optimizer.zero_grad()
    optimizer.step()
    loss_of(model).backward()


def test_a_closure_with_two_backward_passes() -> None:
    model = linear()
    optimizer = SGD(model.parameters(), in_backward=True)

    def closure() -> None:
        loss_of(model).backward()
        loss_of(model).backward()

    with pytest.raises(InputError, match="got a second gradient before step"):
        optimizer.step(closure)


def test_a_gradient_written_after_the_update() -> None:
    model = linear()
    optimizer = SGD(model.parameters(), in_backward=True)
    loss_of(model).backward()
    with optimizer.accumulating():
        loss_of(model).backward()
    with pytest.raises(InputError, match=r"has a gradient in step\(\) after it was moved in backward"):
        optimizer.step()


def test_two_optimizers_for_one_parameter() -> None:
    model = linear()
    both = SGD(model.parameters(), in_backward=True), SGD(model.parameters(), in_backward=True)
    with pytest.raises(InputError, match="was freed by another hook before this one"):
        loss_of(model).backward()
    assert len(both) == 2


def test_weights_that_the_graph_still_needs_are_caught_by_torch() -> None:
    model = linear()
    optimizer = SGD(model.parameters(), in_backward=True)
    x = torch.ones(2, 3, requires_grad=True)
    through_values = (x @ model.weight.detach()).pow(2).sum()  # needs the weight's values later than its gradient
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (loss_of(model) + through_values).backward() if optimizer else None


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing(use_reentrant: bool) -> None:
    models = [nn.ModuleList([linear(), linear()]) for _ in range(2)]
    for model, in_backward in zip(models, (False, True), strict=True):
        optimizer = SGD(model.parameters(), lr=0.1, in_backward=in_backward)
        for _ in range(3):
            optimizer.zero_grad()
            x = torch.ones(2, 3, requires_grad=True)
            for layer in model:
                x = checkpoint(layer, x, use_reentrant=use_reentrant).tanh()
            x.sum().backward()
            optimizer.step()
    assert all(torch.equal(x, y) for x, y in zip(models[0].parameters(), models[1].parameters(), strict=True))


def test_a_shared_weight_in_two_reentrant_checkpoints() -> None:
    model = linear()
    optimizer = SGD(model.parameters(), in_backward=True)
    x = torch.ones(2, 3, requires_grad=True)
    for _ in range(2):
        x = checkpoint(model, x, use_reentrant=True).tanh()
    with pytest.raises(InputError, match="checkpoint shared weights with use_reentrant=False"):
        x.sum().backward()
    assert optimizer.param_groups


def test_a_sparse_gradient() -> None:
    embedding, plain = (nn.Embedding(4, 2, sparse=True) for _ in range(2))
    plain.load_state_dict(embedding.state_dict())
    for model, in_backward in ((embedding, True), (plain, False)):
        optimizer = SGD(model.parameters(), lr=0.1, in_backward=in_backward)
        model(torch.tensor([1, 2, 1])).pow(2).sum().backward()
        optimizer.step()
    assert torch.equal(embedding.weight, plain.weight)
    clipping = SGD(nn.Embedding(4, 2, sparse=True).parameters(), in_backward=True, max_norm=1.0)
    with pytest.raises(InputError, match="a gradient is sparse, which cannot be clipped"):
        nn.functional.embedding(torch.tensor([1]), clipping.param_groups[0]["params"][0], sparse=True).sum().backward()


class _Exact:
    """A model, and its optimizer with clipping='exact'."""

    def __init__(self) -> None:
        self.model = linear()
        self.optimizer = SGD(self.model.parameters(), in_backward=True, max_norm=1.0, clipping="exact")
        self.before = self.model.weight.detach().clone()


@pytest.fixture
def exact() -> _Exact:
    return _Exact()


def test_exact_outside_a_closure(exact: Any) -> None:
    with pytest.raises(InputError, match=r"backward outside step\(closure\) with clipping='exact'"):
        loss_of(exact.model).backward()
    assert torch.equal(exact.model.weight, exact.before)


def test_exact_with_a_closure_that_draws_its_batch(exact: Any) -> None:
    batches = iter([torch.ones(2, 3), torch.ones(2, 3) * 2])
    with pytest.raises(InputError, match=r"norm was .* when the closure first ran and .* the second time"):
        exact.optimizer.step(lambda: exact.model(next(batches)).pow(2).sum().backward())
    assert torch.equal(exact.model.weight, exact.before)


def test_exact_with_gradients_from_before(exact: Any) -> None:
    with exact.optimizer.accumulating():
        loss_of(exact.model).backward()
    with pytest.raises(InputError, match=r"has a gradient from before step\(closure\)"):
        exact.optimizer.step(lambda: loss_of(exact.model).backward())


RANK = """
import sys, torch, torch.distributed as dist
from lightball.errors import InputError
from lightball.optim import SGD
model = torch.nn.Linear(2, 2)
early = SGD(model.parameters(), in_backward=True)
dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=int(sys.argv[2]), world_size=2)
before = model.weight.detach().clone()
for attempt in (lambda: SGD(model.parameters(), in_backward=True), lambda: model(torch.ones(2)).sum().backward()):
    try:
        attempt()
    except InputError as error:
        print(error)
assert torch.equal(model.weight, before)
dist.destroy_process_group()
"""


def test_two_processes_are_refused_when_made_and_before_anything_moves(tmp_path: Path) -> None:
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(tmp_path / "meeting"), str(rank)], stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    for rank in ranks:
        said, _ = rank.communicate(timeout=60)
        assert rank.returncode == 0
        assert said.count("in_backward=True in one of 2 processes") == 2
        assert "use in_backward=False, with fully_shard (FSDP)" in said


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_distributed_data_parallel_in_one_process() -> None:
    model = linear()
    optimizer = SGD(model.parameters(), in_backward=True)
    parallel = nn.parallel.DistributedDataParallel(model)
    loss_of(parallel).backward()
    with pytest.raises(InputError, match="no DistributedDataParallel"):
        optimizer.step()
