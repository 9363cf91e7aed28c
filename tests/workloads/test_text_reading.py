import sys
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from lightball import InputError
from lightball.workloads.text.reading import read
from lightball.workloads.text.tasks import TASKS


def write(root, name, **columns):
    file = root / f"{name}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns), file)


def split(name, which="train"):
    return TASKS[name], getattr(TASKS[name], which)


def test_rows_come_in_the_order_of_files_and_without_those_that_have_no_label(tmp_path):
    write(tmp_path, "snli/train-1", label=[2], hypothesis=["c"], premise=["C"])
    write(tmp_path, "snli/train-0", label=[1, -1], hypothesis=["a", "b"], premise=["A", "B"])

    rows = read(*split("snli"), tmp_path)

    assert rows.texts == (("A", "a"), ("C", "c"))
    assert rows.labels == (1, 2)
    assert rows.take([1]).texts == (("C", "c"),)


def test_brackets_are_written_in_one_way(tmp_path):
    write(tmp_path, "sst5/train-0", text=["a -lrb- very -rrb- good film", "( so )"], label=[4, 3])
    assert read(*split("sst5"), tmp_path).texts == (("a ( very ) good film",), ("( so )",))


def test_a_part_of_trec_that_is_kept_apart_is_training_data_and_may_be_missing(tmp_path):
    write(tmp_path, "trec/train-0", text=["Who ?"], coarse_label=[3])
    write(tmp_path, "trec/test-0", text=["Where ?"], coarse_label=[4])
    assert read(*split("trec"), tmp_path).labels == (3,)

    other = tmp_path / "other"
    write(other, "trec/train-0", text=["Who ?"], coarse_label=[3])
    write(other, "trec/validation-0", text=["Why ?"], coarse_label=[2])
    assert read(*split("trec"), other).labels == (3, 2)


def test_what_is_not_as_expected_is_named(tmp_path):
    with pytest.raises(InputError, match=r"there is no folder '.*sst2': LIGHTBALL_DATA must name"):
        read(*split("sst2"), tmp_path)
    (tmp_path / "sst2").mkdir()
    with pytest.raises(InputError, match=r"sst2' holds no file train-\*\.parquet, which task 'sst2' is read from"):
        read(*split("sst2"), tmp_path)
    write(tmp_path, "sst2/train-0", text=["good"], label=[1])
    with pytest.raises(InputError, match=r"cannot read '.*train-0.parquet' with columns sentence, label"):
        read(*split("sst2"), tmp_path)
    write(tmp_path, "sst2/train-0", sentence=["good"], label=[2])
    with pytest.raises(InputError, match=r"has a label 2 in column label, but .* labels 0 to 1 \(negative, positive\)"):
        read(*split("sst2"), tmp_path)
    write(tmp_path, "sst2/train-0", sentence=["good"], label=[-1])
    with pytest.raises(InputError, match="has no row with a label for task 'sst2'"):
        read(*split("sst2"), tmp_path)


class Hub:
    """In place of datasets: a module with one function, and what that returns."""

    def __init__(self, script=False, broken=False):
        self.script, self.broken, self.asked = script, broken, []

    def load_dataset(self, name, config, split, revision=None):
        self.asked.append((name, config, split, revision))
        if self.broken:
            raise ConnectionError("Couldn't reach the hub\nlong explanation")
        if self.script and revision is None:
            raise RuntimeError("Dataset scripts are no longer supported")
        return self

    def select_columns(self, names):
        table = pa.table({"idx": [7, 8], "sentence": ["x", "y"], "text": ["x", "y"]})
        table = table.append_column("label", pa.array([1, -1])).append_column("coarse_label", pa.array([5, 0]))
        return SimpleNamespace(with_format=lambda kind: table.select(names) if kind == "arrow" else None)


@pytest.fixture
def on_hub(monkeypatch):
    def put(hub):
        read.__globals__["_read"].cache_clear()
        monkeypatch.delenv("LIGHTBALL_DATA", raising=False)
        monkeypatch.setitem(sys.modules, "datasets", hub)
        return hub

    yield put
    read.__globals__["_read"].cache_clear()


def test_without_a_folder_rows_come_from_the_hub(on_hub):
    hub = on_hub(Hub())
    rows = read(*split("sst2", "test"))
    assert (rows.texts, rows.labels) == ((("x",),), (1,))
    assert hub.asked == [("stanfordnlp/sst2", None, "validation", None)]


def test_a_data_set_that_is_a_script_is_read_from_its_converted_files(on_hub):
    hub = on_hub(Hub(script=True))
    assert read(*split("trec")).labels == (5, 0)
    assert [asked[2:] for asked in hub.asked] == [("train", None), ("train", "refs/convert/parquet")]


def test_without_folder_network_or_datasets_both_ways_out_are_named(on_hub):
    on_hub(Hub(broken=True))
    with pytest.raises(InputError, match=r"cannot load stanfordnlp/sst2 \(train\) .*: Couldn't reach the hub \(.*netw"):
        read(*split("sst2"))
    on_hub(None)  # as if it were not installed
    with pytest.raises(InputError, match=r"pip install 'lightball\[text\]', or set LIGHTBALL_DATA .* holds sst2/"):
        read(*split("sst2"))
