"""Peak memory of one fine-tuning step, and its time, with and without momentum, in one run.

    python benchmarks/memory.py                 # about 20 minutes on one core, 10 GB
    python benchmarks/memory.py --device cuda
    python benchmarks/memory.py --quick         # small models and no times: a minute
    python benchmarks/memory.py --json          # the same facts for a machine

BERT and GPT-2 in their usual sizes (110 and 124 million parameters, output layer tied to the embedding), random
weights, dropout on, batch 1 × 128 tokens, float32 and bfloat16. Counted are the bytes of live tensors: on the CPU every
allocation and release of torch's allocator, as its profiler reports them, from before the model is made; on a GPU
`torch.cuda.max_memory_allocated`. The second step is what counts, with the state that the first one left.

    weights       parameters and buffers
    activations   what the forward pass adds at its peak
    the rest      the peak of the step less both: gradients, momentum, temporaries

Times are CPU time with one thread (on a GPU, wall time of synchronised steps), steps of all sides in turn, each in a
process of its own, as the median over rounds of the ratio to ours in the same round. LOMO is measured where it can be
imported, from whatever PYTHONPATH says (`pip install --target DIR --no-deps lomo-optim`). The exit code is 1 if a
target is missed.
"""

from __future__ import annotations

import gc
import importlib
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import click
import torch
import transformers
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from lightball.optim.sgd import SGD
from lightball.optim.tied import sum_in_place

LR, DECAY, MOMENTUM = 1e-3, 0.01, 0.9
NUM_TOKENS = 128
MARGIN = 0.02
SLOWER = 0.02  # what two runs of the same code may differ by
LESS = {"BERT": 2.4, "GPT-2": 2.2}  # times less than SGD with momentum, in what is not activations

SMALL_BERT = {
    "vocab_size": 1000,
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 512,
}
SMALL_GPT2 = {"vocab_size": 1000, "n_embd": 128, "n_layer": 4, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0}

OURS = "lightball SGD, in backward, tied in place"
WITH_MOMENTUM = ("torch SGD, momentum", "torch SGD, momentum, foreach")
TIMED = ("torch SGD", "torch SGD, foreach", "torch SGD, fused", "lightball SGD, fused", OURS)

Update = Callable[[Tensor], None]
"""From the loss of a forward pass: backward pass and step."""
Side = Callable[[nn.Module], Update]


def usual(make: Callable[..., torch.optim.Optimizer], model: nn.Module, tied: bool = False, **options: Any) -> Update:
    """The loop that everybody writes; the same for an optimizer that updates in backward."""
    if tied:
        sum_in_place(model)
    optimizer = make(model.parameters(), lr=LR, **options)

    def update(loss: Tensor) -> None:
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return update


def lomo(model: nn.Module) -> Update:
    optimizer = importlib.import_module("lomo_optim").Lomo(model, lr=LR)
    return lambda loss: optimizer.fused_backward(loss, LR)


def sides() -> dict[str, Side]:
    theirs, ours = partial(usual, torch.optim.SGD), partial(usual, SGD)
    return {
        "torch SGD, momentum": partial(theirs, momentum=MOMENTUM),
        "torch SGD, momentum, foreach": partial(theirs, momentum=MOMENTUM, foreach=True),
        "torch SGD, momentum, tied in place": partial(theirs, momentum=MOMENTUM, tied=True),
        "torch SGD": partial(theirs, foreach=False),
        "torch SGD, weight decay": partial(theirs, weight_decay=DECAY, foreach=False),
        "torch SGD, foreach": partial(theirs, foreach=True),
        "torch SGD, foreach, weight decay": partial(theirs, weight_decay=DECAY, foreach=True),
        "torch SGD, fused": partial(theirs, fused=True),
        "torch AdamW": partial(usual, torch.optim.AdamW),
        "LOMO": lomo,
        "lightball SGD": ours,
        "lightball SGD, foreach, weight decay": partial(ours, weight_decay=DECAY, foreach=True),
        "lightball SGD, fused": partial(ours, fused=True),
        "lightball SGD, in backward": partial(ours, in_backward=True),
        OURS: partial(ours, in_backward=True, tied=True),
        f"{OURS}, weight decay": partial(ours, in_backward=True, tied=True, weight_decay=DECAY),
        f"{OURS}, momentum": partial(ours, in_backward=True, tied=True, momentum=MOMENTUM),
    }


@dataclass(frozen=True)
class Task:
    """A model of a size, in a dtype, on a device."""

    model: str
    dtype: str
    device: str
    quick: bool

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        model: nn.Module
        if self.model == "BERT":
            model = transformers.BertForMaskedLM(transformers.BertConfig(**(SMALL_BERT if self.quick else {})))
        else:
            model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**(SMALL_GPT2 if self.quick else {})))
        return model.to(self.device, getattr(torch, self.dtype)).train()

    def ids(self) -> Tensor:
        return torch.arange(NUM_TOKENS, device=self.device)[None]

    def __str__(self) -> str:
        return f"{self.model}, {self.dtype}"


@dataclass(frozen=True)
class Memory:
    """Bytes of a step."""

    peak: int
    weights: int
    activations: int
    largest_gradient: int

    @property
    def rest(self) -> int:
        return self.peak - self.weights - self.activations


def memory(task: Task, side: Side) -> Memory:
    """The second of two steps."""
    gc.collect()
    return _on_cuda(task, side) if task.device.startswith("cuda") else _on_cpu(task, side)


def _on_cpu(task: Task, side: Side) -> Memory:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        model = task.build()
        update, ids = side(model), task.ids()
        for _ in range(2):
            times = [time.time_ns()]
            loss = model(input_ids=ids, labels=ids).loss
            times.append(time.time_ns())
            update(loss)
            times.append(time.time_ns())
            del loss
    begin, middle, end = times
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    live = before = forward = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        if event.start_ns() < begin:
            before = forward = peak = live
        elif event.start_ns() < end:
            peak = max(peak, live)
            forward = max(forward, live) if event.start_ns() < middle else forward
    return _memory(model, peak, forward - before)


def _on_cuda(task: Task, side: Side) -> Memory:
    model = task.build()
    update, ids = side(model), task.ids()
    for _ in range(2):
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        loss = model(input_ids=ids, labels=ids).loss
        forward = torch.cuda.max_memory_allocated()
        update(loss)
        peak = torch.cuda.max_memory_allocated()
        del loss
    return _memory(model, peak, forward - before)


def _memory(model: nn.Module, peak: int, activations: int) -> Memory:
    parameters = [p.numel() * p.element_size() for p in model.parameters()]
    buffers = [b.numel() * b.element_size() for b in model.buffers()]
    return Memory(peak, sum(parameters) + sum(buffers), activations, max(parameters))


def times(task: Task, rounds: int) -> dict[str, list[float]]:
    """Seconds of each step in each round, by side; the first two rounds are not counted.

    Each side has a process of its own, since what one leaves in the allocator makes others faster or slower.
    """
    context = multiprocessing.get_context("spawn")
    workers = {}
    for name in TIMED:
        here, there = context.Pipe()
        process = context.Process(target=_steps, args=(there, task, name), daemon=True)
        process.start()
        workers[name] = (here, process)
    found: dict[str, list[float]] = {name: [] for name in TIMED}
    for i in range(rounds + 2):
        for name in TIMED if i % 2 else TIMED[::-1]:
            here, _ = workers[name]
            here.send(True)
            found[name].append(here.recv())
    for here, process in workers.values():
        here.send(False)
        process.join()
    return {name: values[2:] for name, values in found.items()}


def _steps(connection: Any, task: Task, name: str) -> None:
    """In a process of its own: a step whenever it is told to."""
    _quiet()
    model = task.build()
    update, ids = sides()[name](model), task.ids()
    while connection.recv():
        begin = _now(task.device)
        update(model(input_ids=ids, labels=ids).loss)
        connection.send(_now(task.device) - begin)


def _quiet() -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()


def _now(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


@dataclass(frozen=True)
class Verdict:
    """A target; met if the value is at most, or at least, as large."""

    what: str
    value: float
    target: float
    at_most: bool

    @property
    def met(self) -> bool:
        return self.value <= self.target if self.at_most else self.value >= self.target

    def __str__(self) -> str:
        sign = "≤" if self.at_most else "≥"
        return f"{'meets' if self.met else 'MISSES'}  {self.what}: {self.value:.3f}, target {sign} {self.target:g}"


def verdicts(task: Task, rows: dict[str, Memory], seconds: dict[str, list[float]]) -> list[Verdict]:
    ours = rows[OURS]
    bound = ours.weights + ours.activations + ours.largest_gradient
    found = [Verdict("peak to weights + activations + largest gradient", ours.peak / bound, 1 + MARGIN, True)]
    if not task.quick:
        less = min(rows[name].peak - rows[name].activations for name in WITH_MOMENTUM) / (ours.peak - ours.activations)
        found.append(Verdict("SGD with momentum to it, without activations", less, LESS[task.model], False))
    if seconds:
        theirs = min((name for name in TIMED if name.startswith("torch")), key=lambda n: statistics.median(seconds[n]))
        ratio = statistics.median(a / b for a, b in zip(seconds[OURS], seconds[theirs], strict=True))
        found.append(Verdict(f"time of a step to that of {theirs}, the fastest", ratio, 1 + SLOWER, True))
    return found


def measured(task: Task) -> tuple[dict[str, Memory], dict[str, str]]:
    rows, missing = {}, {}
    for name, side in sides().items():
        try:
            rows[name] = memory(task, side)
        except ImportError as error:
            missing[name] = str(error)
    return rows, missing


def show(rows: dict[str, Memory], missing: dict[str, str], seconds: dict[str, list[float]]) -> None:
    mega = 2**20
    one = next(iter(rows.values()))
    click.echo(f"weights {one.weights / mega:.0f} MB, largest gradient {one.largest_gradient / mega:.0f} MB")
    click.echo(f"{'':<58} {'peak':>7} {'activations':>12} {'the rest':>9} {'time':>6}")
    for name, row in rows.items():
        pairs = zip(seconds[name], seconds[OURS], strict=True) if name in seconds else ()
        ratios = [theirs / ours for theirs, ours in pairs]
        ratio = f"{statistics.median(ratios):.2f}" if ratios else ""
        numbers = f"{row.peak / mega:>7.0f} {row.activations / mega:>12.0f} {row.rest / mega:>9.0f}"
        click.echo(f"{name:<58} {numbers} {ratio:>6}".rstrip())
    for name, reason in missing.items():
        click.echo(f"{name}: not measured: {reason}")


@click.command()
@click.option("--device", default="cpu", show_default=True)
@click.option("--rounds", default=11, show_default=True, help="Steps of each side that are timed; 0 for none.")
@click.option("--quick", is_flag=True, help="Small models, and no times.")
@click.option("--json", "as_json", is_flag=True)
def main(device: str, rounds: int, quick: bool, as_json: bool) -> None:
    """Print the tables; exit code 1 if a target is missed."""
    _quiet()
    facts: dict[str, Any] = {"torch": torch.__version__, "transformers": transformers.__version__, "device": device}
    met = True
    for task in (Task(model, dtype, device, quick) for model in LESS for dtype in ("float32", "bfloat16")):
        rows, missing = measured(task)
        seconds = {} if quick or not rounds else times(task, rounds)
        found = verdicts(task, rows, seconds)
        met = met and all(verdict.met for verdict in found)
        if as_json:
            facts[str(task)] = {
                "bytes": {name: {**asdict(row), "rest": row.rest} for name, row in rows.items()},
                "missing": missing,
                "seconds": seconds,
                "targets": [{**asdict(verdict), "met": verdict.met} for verdict in found],
            }
            continue
        click.echo(f"{task}, batch 1 × {NUM_TOKENS}, on {device}, torch {torch.__version__}")
        show(rows, missing, seconds)
        click.echo("\n".join(map(str, found)) + "\n")
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    sys.exit(not met)


if __name__ == "__main__":
    main()
