import os
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from lightball import InputError
from lightball.workloads.text.few_shot import OFFICIAL_SEEDS, evaluation_rows, sample
from lightball.workloads.text.reading import read
from lightball.workloads.text.tasks import TASKS

SST2, TREC = TASKS["sst2"], TASKS["trec"]
with_data = pytest.mark.skipif(
    not os.environ.get("LIGHTBALL_DATA"), reason="needs real texts: LIGHTBALL_DATA names no folder"
)


@pytest.fixture
def root(tmp_path):
    """30 sentences of one class and 25 of the other, and a test split of 40."""
    labels = [int(i % 11 < 5) for i in range(55)]
    write(tmp_path, "sst2/train-0", sentence=[f"sentence {i}" for i in range(55)], label=labels)
    write(tmp_path, "sst2/validation-0", sentence=[f"other {i}" for i in range(40)], label=[0, 1] * 20)
    return tmp_path


def write(root, name, **columns):
    file = root / f"{name}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns), file)


def test_k_of_each_class_train_and_k_others_select(root):
    train, selection = sample(SST2, 10, 3, root)

    assert Counter(train.labels) == Counter(selection.labels) == {0: 10, 1: 10}
    assert len({*train.texts, *selection.texts}) == 40
    sentences = {f"sentence {i}": int(i % 11 < 5) for i in range(55)}
    for rows in (train, selection):
        assert [sentences[text] for (text,) in rows.texts] == list(rows.labels)


def test_a_sample_is_a_function_of_the_seed(root):
    assert sample(SST2, 10, 3, root) == sample(SST2, 10, 3, root)
    assert set(sample(SST2, 10, 3, root)[0].texts) != set(sample(SST2, 10, 4, root)[0].texts)


def test_too_few_examples_are_refused_with_class_count_and_what_is_required(root):
    with pytest.raises(
        InputError,
        match=r"has 25 training examples of class 'positive', but k = 13 requires 26 .*take k of at most 12",
    ):
        sample(SST2, 13, 0, root)
    with pytest.raises(InputError, match="k is 0, but must be a whole number from 1 up"):
        sample(SST2, 0, 0, root)


def test_a_scarce_class_gives_what_it_has(tmp_path):
    labels = [0] * 7 + [1] * 20 + [2] * 20 + [3] * 20 + [4] * 12 + [5] * 20
    write(tmp_path, "trec/train-0", text=[f"question {i}" for i in range(99)], coarse_label=labels)

    train, selection = sample(TREC, 10, 0, tmp_path)

    assert Counter(train.labels) == {0: 7, 1: 10, 2: 10, 3: 10, 4: 10, 5: 10}
    assert Counter(selection.labels) == {1: 10, 2: 10, 3: 10, 4: 2, 5: 10}
    with pytest.raises(InputError, match="has 20 training examples of class 'ENTY', but k = 11 requires 22"):
        sample(TREC, 11, 0, tmp_path)


def test_official_samples_are_those_of_the_file(root):
    columns = {"seed": [], "split": [], "sentence": [], "label": []}
    for seed in OFFICIAL_SEEDS:
        for which, label in (("dev", 0), ("train", 0), ("train", 1), ("dev", 1)):
            for name, value in zip(columns, (seed, which, f"{seed} {which} {label}", label), strict=True):
                columns[name].append(value)
    write(root, "fewshot/sst2/kshot512", **columns)

    train, selection = sample(SST2, 512, 87, root)

    assert train.texts == (("87 train 0",), ("87 train 1",))
    assert selection.texts == (("87 dev 0",), ("87 dev 1",))
    with pytest.raises(InputError, match="k = 512 requires 1024"):  # other seeds are drawn, from too few here
        sample(SST2, 512, 88, root)
    assert len(sample(SST2, 4, 87, root)[0]) == 8  # other k are drawn too


def test_the_test_rows_are_some_of_the_split_and_always_the_same(root):
    some = evaluation_rows(SST2, 12, root)

    assert len(set(some.texts)) == 12
    assert all(text.startswith("other") for (text,) in some.texts)
    assert some == evaluation_rows(SST2, 12, root)
    assert len(evaluation_rows(SST2, 1000, root)) == 40


@with_data
@pytest.mark.parametrize(("name", "num_test"), [("sst2", 872), ("sst5", 1000), ("trec", 500), ("mnli", 1000)])
def test_drawn_samples_have_the_counts_of_the_official_ones(name, num_test):
    task = TASKS[name]
    official, drawn = sample(task, 512, 13), sample(task, 512, 14)

    for of_file, of_seed in zip(official, drawn, strict=True):
        assert Counter(of_file.labels) == Counter(of_seed.labels)
        assert set(of_file.texts) != set(of_seed.texts)
    assert len(evaluation_rows(task)) == num_test
    if name == "trec":
        assert [len(rows) for rows in official] == [2646, 2243]
    assert "-lrb-" not in str(official) + str(drawn)


@with_data
def test_official_examples_are_training_examples():
    for name in ("sst5", "trec"):
        task = TASKS[name]
        known = set(zip(*vars(read(task, task.train)).values(), strict=True))
        for rows in sample(task, 512, 42):
            assert set(zip(rows.texts, rows.labels, strict=True)) <= known
