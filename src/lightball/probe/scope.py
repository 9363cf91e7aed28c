"""Measuring a model without a trace: everything that a pass could change is put back, whatever happens in it."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from lightball.oracles import seed_of

Restore = Callable[[], None]


@contextmanager
def unchanged(model: nn.Module, optimizer: Optimizer | None = None) -> Iterator[None]:
    """After it, all is bit for bit as before, also when its body raises or is interrupted.

    That is: parameters, buffers, ``.grad`` (the objects and their values), ``requires_grad``, attributes, hooks and
    modes of all modules, the optimizer's state and groups, global generators (torch's, NumPy's, Python's), and
    torch's flags (autocast, gradient mode, precision, cuDNN, attention backends). Costs a copy of all tensors.
    """
    restores = [_flags(), _generators(), _attributes(model), _values(_tensors_of(model, optimizer))]
    if optimizer is not None:
        restores.append(_settings(optimizer))
    try:
        yield
    finally:
        try:
            _all(restores)
        except KeyboardInterrupt:  # each can be done twice, so that an impatient second Ctrl-C leaves nothing undone
            _all(restores)
            raise


@contextmanager
def computing(seed: int, use: int = 0) -> Iterator[None]:
    """Inside, gradients are recorded in full precision, by operations that can be differentiated twice.

    Global generators are seeded by ``seed`` and ``use``, so that dropout draws the same masks in every pass. Compiled
    code runs uncompiled. After it, generators and flags are as before.
    """
    restores = [_flags(), _generators()]
    number = seed_of(use="probe", seed=seed, number=use)
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(_PlainWeightNorm())
            for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
                stack.enter_context(torch.autocast(device, enabled=False))
            if "torch._dynamo" in sys.modules:  # else nothing has been compiled
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            for place in _PRECISIONS:
                place.fp32_precision = "ieee"
            torch.default_generator.manual_seed(number)
            if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
                torch.cuda.manual_seed_all(number)
            random.seed(number)
            np.random.seed(number % 2**32)  # noqa: NPY002  what a model may draw from
            yield
    finally:
        _all(restores)


class _PlainWeightNorm(TorchFunctionMode):
    """Weight normalisation by plain operations: the second derivative of torch's own is wrong on CPU (torch 2.13)."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch._weight_norm:
            return _weight_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    others = [axis for axis in range(v.ndim) if axis != dim % v.ndim] if dim != -1 else list(range(v.ndim))
    return v * (g / v.square().sum(dim=others, keepdim=True).sqrt())


@contextmanager
def substituted(model: nn.Module, tensors: Mapping[int, Tensor]) -> Iterator[None]:
    """Inside, the model holds ``tensors[id(own)]`` in place of each of its own parameters and buffers named there.

    By identity, so that tied weights stay tied; lists of parameters (recurrent layers keep one) are followed too.
    """
    with _kept(model) as places:
        for place in places:
            for key, value in list(place.items()) if isinstance(place, dict) else list(enumerate(place)):
                if id(value) in tensors:
                    place[key] = tensors[id(value)]
        yield


@contextmanager
def mode_of(model: nn.Module, training: bool | None) -> Iterator[None]:
    """Inside, the model trains or evaluates (None: as it is); every module comes out in the mode that it had."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        if training is not None:
            model.train(training)
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def _kept(model: nn.Module) -> Iterator[list[Any]]:
    """The dictionaries and lists in which modules keep tensors, whose contents come out as they went in."""
    places = [
        value
        for module in model.modules()
        for name, value in vars(module).items()
        if name in ("_parameters", "_buffers")
        or (isinstance(value, list) and any(isinstance(each, Tensor) for each in value))
    ]
    before = [place.copy() for place in places]
    try:
        yield places
    finally:
        for place, contents in zip(places, before, strict=True):
            _refill(place, contents)


def _all(restores: list[Restore]) -> None:
    for restore in restores:
        restore()


def _refill(place: Any, contents: Any) -> None:
    place.clear()
    place.extend(contents) if isinstance(place, list) else place.update(contents)


def _attributes(model: nn.Module) -> Restore:
    """Attributes of every module: modes, hooks, and which tensors and submodules it holds."""
    before = []
    for module in model.modules():
        inner = [(value, value.copy()) for value in vars(module).values() if isinstance(value, dict | list | set)]
        before.append((vars(module), dict(vars(module)), inner))

    def restore() -> None:
        for attributes, contents, inner in before:
            if _differs(attributes, contents):
                _refill(attributes, contents)
            for value, copied in inner:
                if _differs(value, copied):
                    _refill(value, copied)

    return restore


def _differs(now: Any, before: Any) -> bool:
    """Whether a container no longer holds the very same objects."""
    if len(now) != len(before):
        return True
    if isinstance(now, dict):
        return any(a is not b or now[a] is not before[b] for a, b in zip(now, before, strict=True))
    if isinstance(now, set):
        return bool(now != before)
    return any(a is not b for a, b in zip(now, before, strict=True))


def _tensors_of(model: nn.Module, optimizer: Optimizer | None) -> list[Tensor]:
    found = [*model.parameters(), *model.buffers()]
    if optimizer is not None:
        found += [each for state in optimizer.state.values() for each in state.values() if isinstance(each, Tensor)]
        found += [p for group in optimizer.param_groups for p in group["params"]]
    return list({id(tensor): tensor for tensor in found}.values())


def _values(tensors: list[Tensor]) -> Restore:
    """Values, gradients and ``requires_grad``; what has not changed is not written, since an autograd graph may
    hold it."""
    before = [(tensor, _copy(tensor), tensor.requires_grad, tensor.grad, _copy(tensor.grad)) for tensor in tensors]

    def restore() -> None:
        with torch.no_grad():
            for tensor, value, requires_grad, grad, grad_value in before:
                if tensor.requires_grad != requires_grad:
                    tensor.requires_grad_(requires_grad)
                if tensor.grad is not grad:
                    tensor.grad = grad
                _write(tensor, value)
                _write(grad, grad_value)

    return restore


def _copy(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().clone()


def _write(tensor: Tensor | None, value: Tensor | None) -> None:
    if tensor is not None and value is not None and not torch.equal(tensor, value):
        tensor.data.copy_(value)


def _settings(optimizer: Optimizer) -> Restore:
    """Which states and groups an optimizer has."""
    states = {p: dict(state) for p, state in optimizer.state.items()}
    groups = [dict(group) for group in optimizer.param_groups]

    def restore() -> None:
        for p in [p for p in optimizer.state if p not in states]:
            del optimizer.state[p]
        for p, state in states.items():
            _refill(optimizer.state[p], state)
        for group, settings in zip(optimizer.param_groups, groups, strict=True):
            _refill(group, settings)

    return restore


def _generators() -> Restore:
    torch_state, python, numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]

    def restore() -> None:
        torch.set_rng_state(torch_state)
        if gpus:
            torch.cuda.set_rng_state_all(gpus)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002

    return restore


# Where torch may be allowed to round float32 products to fewer bits.
_BACKENDS: Any = torch.backends
_PRECISIONS = [
    _BACKENDS.cuda.matmul,
    _BACKENDS.cudnn.conv,
    _BACKENDS.cudnn.rnn,
    _BACKENDS.mkldnn.matmul,
    _BACKENDS.mkldnn.conv,
    _BACKENDS.mkldnn.rnn,
]


def _flags() -> Restore:
    """torch's global switches that matter to a pass, and its gradient mode."""
    cuda = _BACKENDS.cuda
    states: list[tuple[Callable[[Any], Any], Any]] = [
        (torch.set_grad_enabled, torch.is_grad_enabled()),
        (torch.set_autocast_cache_enabled, torch.is_autocast_cache_enabled()),
        (cuda.enable_flash_sdp, cuda.flash_sdp_enabled()),
        (cuda.enable_mem_efficient_sdp, cuda.mem_efficient_sdp_enabled()),
        (cuda.enable_math_sdp, cuda.math_sdp_enabled()),
        (cuda.enable_cudnn_sdp, cuda.cudnn_sdp_enabled()),
        (torch.set_default_dtype, torch.get_default_dtype()),
        *(
            (_autocast(device), (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)))
            for device in ("cpu", "cuda")
        ),
    ]
    states.append((_matmul_precision, torch.get_float32_matmul_precision()))  # sets those below too
    places = [(place, "fp32_precision") for place in _PRECISIONS]
    places += [(torch.backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic")]
    states += [(_attribute(place, name), getattr(place, name)) for place, name in places]

    def restore() -> None:
        for set_to, value in states:
            set_to(value)

    return restore


def _attribute(place: Any, name: str) -> Callable[[Any], None]:
    def set_to(value: Any) -> None:
        if getattr(place, name) != value:
            setattr(place, name, value)

    return set_to


def _matmul_precision(value: str) -> None:
    if torch.get_float32_matmul_precision() != value:
        torch.set_float32_matmul_precision(value)


def _autocast(device: str) -> Callable[[Any], None]:
    def set_to(value: tuple[bool, torch.dtype]) -> None:
        torch.set_autocast_enabled(device, value[0])
        torch.set_autocast_dtype(device, value[1])

    return set_to
