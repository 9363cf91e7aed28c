"""`lightball reproduce finetune`, with a RoBERTa of random weights and a byte-level BPE made here."""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch

from lightball.cli.main import main
from lightball.report.reproduce.finetune import finetune_page
from lightball.reproduce.finetune import finetune_parts, run_finetune
from lightball.reproduce.finetune_settings import PRESETS, FinetuneSettings
from lightball.reproduce.scales import SCALES, preset
from lightball.studies.runs import Run, seeds
from lightball.studies.study import read_study
from lightball.workloads import Data
from lightball.workloads.text import TASKS, evaluation_rows
from lightball.workloads.text.encoding import Encoder, word_ids
from lightball.workloads.text.pretrained import load_tokenizer
from lightball.workloads.text.reading import Rows, read

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when transformers is imported
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

# As the paper's experiment has them: template, and the word of each label as the data number them.
PUBLISHED = {
    "sst2": ("<s> It was <mask>.", {"negative": "terrible", "positive": "great"}),
    "sst5": (
        "<s> It was <mask>.",
        {
            "very negative": "terrible",
            "negative": "bad",
            "neutral": "okay",
            "positive": "good",
            "very positive": "great",
        },
    ),
    "snli": ("<s1> ? <mask> , <s2>", {"entailment": "Yes", "neutral": "Maybe", "contradiction": "No"}),
    "mnli": ("<s1> ? <mask> , <s2>", {"entailment": "Yes", "neutral": "Maybe", "contradiction": "No"}),
    "trec": (
        "<mask> : <s>",
        {
            "ABBR": "Expression",
            "ENTY": "Entity",
            "DESC": "Description",
            "HUM": "Human",
            "LOC": "Location",
            "NUM": "Number",
        },
    ),
}
TEXTS = ["a great film", "great fun , and moving", "a terrible film", "terrible , and dull"]
QUESTIONS = ["What is a film ?", "Who made it ?", "Where was it made ?"]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def save_roberta(folder: Path, words: list[str], *, head: bool = True) -> str:
    """A tokenizer that knows these words after a blank, and a model of two layers and random weights."""
    bpe = tokenizers.ByteLevelBPETokenizer()
    texts = [*TEXTS, *QUESTIONS, *(f"so {word} It was" for word in words)] * 4
    bpe.train_from_iterator(texts, vocab_size=800, min_frequency=2, special_tokens=SPECIAL, show_progress=False)
    bpe.save_model(str(folder))
    tokenizer = transformers.RobertaTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.model_max_length = 62
    tokenizer.save_pretrained(folder)
    config = transformers.RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        initializer_range=0.2,
        type_vocab_size=1,
    )
    torch.manual_seed(0)
    kind = transformers.RobertaForMaskedLM if head else transformers.RobertaModel
    kind(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_roberta(tmp_path_factory.mktemp("roberta"), sorted({w for task in TASKS.values() for w in task.words}))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of SST-2, with the samples of the published seeds at k = 512, and of TREC, made up."""
    root = tmp_path_factory.mktemp("data")
    for name, count in (("train", 2100), ("validation", 24)):
        write(root / f"sst2/{name}-0.parquet", sst2(count, name))
    for name in ("train", "test"):
        rows = {"text": [f"{QUESTIONS[i % 3]} {i}" for i in range(60)], "coarse_label": [i % 6 for i in range(60)]}
        write(root / f"trec/{name}-0.parquet", rows)
    samples: dict[str, list[Any]] = {"seed": [], "split": [], "sentence": [], "label": []}
    for seed in (13, 21, 42, 87, 100):
        for split in ("train", "dev"):
            rows = sst2(1024, f"{split} of {seed}")
            samples["seed"] += [seed] * 1024
            samples["split"] += [split] * 1024
            samples["sentence"] += rows["sentence"]
            samples["label"] += rows["label"]
    write(root / "fewshot/sst2/kshot512.parquet", samples)
    return root


def sst2(count: int, name: str) -> dict[str, list[Any]]:
    return {
        "sentence": [f"{TEXTS[i % 4]} {name} {i}" for i in range(count)],
        "label": [1 - i % 4 // 2 for i in range(count)],
    }


def write(file: Path, rows: dict[str, list[Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(rows), file)


@pytest.fixture(scope="module")
def finished(roberta: str, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the smoke test of SST-2."""
    out = tmp_path_factory.mktemp("out")
    assert main([*smoke(roberta, root, out), "--quiet"]) == 0
    return out


def smoke(model: str, root: Path, out: Path) -> list[str]:
    asked = ["reproduce", "finetune", "--scale", "smoke", "--head", "prompt", "--lr", "0.5"]
    return [*asked, "--model", model, "--data", str(root), "--out", str(out), "--workers", "2"]


def test_templates_and_label_words_are_the_published_ones() -> None:
    assert {name: (t.template, dict(zip(t.labels, t.words, strict=True))) for name, t in TASKS.items()} == PUBLISHED
    assert set(FinetuneSettings().tasks) == set(PUBLISHED)


def test_each_label_word_is_a_single_token_after_a_blank(roberta: str) -> None:
    tokenizer = load_tokenizer(roberta)
    for name, (_, words) in PUBLISHED.items():
        ids = word_ids(TASKS[name], roberta)
        assert tokenizer.convert_ids_to_tokens(list(ids)) == [f"Ġ{word}" for word in words.values()]


def test_a_prompt_reads_as_the_published_template(roberta: str) -> None:
    def written(task: str, *texts: str) -> str:
        (tokens,) = Encoder(TASKS[task], roberta, "prompt", 60)(Rows((texts,), (0,))).inputs.tolist()
        return str(load_tokenizer(roberta).decode(tokens))

    assert written("sst2", "a great film") == "<s>a great film It was<mask>.</s>"
    assert written("trec", "Who made it ?") == "<s><mask>: Who made it ?</s>"
    assert written("snli", "a film.", "It was dull") == "<s>a film?<mask>, it was dull</s>"


def test_the_paper_s_scale_is_the_paper_s() -> None:
    settings = PRESETS["paper"]
    parts = finetune_parts(settings)
    study = parts[0].settings

    assert [part.name for part in parts] == ["sst2", "sst5", "trec", "snli", "mnli"]
    assert (settings.model, settings.head, settings.k, settings.num_test) == ("roberta-large", "prompt", 512, 1000)
    assert (study.num_steps, study.eval_every, study.batch_sizes, study.stages) == (1000, 100, (8,), (6,))
    assert (study.clip_norm, study.schedule, study.weight_decay, study.decay) == (1.0, "linear", 0.0, "matrices")
    assert (study.select, study.checkpoint, study.engine) == ("validation_accuracy", "best", "process")
    assert (study.momentum, study.tune, study.confirm_rates) == ((0.9,), "both", "selected")


@pytest.mark.parametrize("scale", SCALES)
def test_options_win_over_every_scale(scale: Any) -> None:
    given = preset(PRESETS, scale, num_steps=7, lr=(0.5,), in_backward=True, k=None)

    assert (given.num_steps, given.lr, given.in_backward) == (7, (0.5,), True)
    assert given.k == PRESETS[scale].k
    study = finetune_parts(given)[0].settings
    assert (study.num_steps, study.lr, study.in_backward) == (7, (0.5,), True)


def test_the_first_five_pairs_have_the_published_samples_and_further_ones_their_own(roberta: str, root: Path) -> None:
    (part,) = finetune_parts(FinetuneSettings(model=roberta, tasks=("sst2",), length=60, data=root))
    workload, encoder = part.workload(), Encoder(TASKS["sst2"], roberta, "prompt", 60)
    confirmation = seeds("confirm", 7)

    for place, seed in enumerate((13, 21, 42, 87, 100)):
        drawn = workload.of_seed(confirmation[place])
        for found, split in ((drawn.train, "train"), (drawn.validation, "dev")):
            rows = sst2(1024, f"{split} of {seed}")
            published = encoder(Rows(tuple((text,) for text in rows["sentence"]), tuple(rows["label"])))
            assert examples(found) == examples(published)

    others = [workload.of_seed(seed) for seed in (*confirmation[5:], *seeds("tune", 2))]
    assert len({str(examples(one.train)) for one in others}) == 4
    of_training_split = {str(one) for one in examples(encoder(read(TASKS["sst2"], TASKS["sst2"].train, root)))}
    for one in others:
        train, selection = ({str(example) for example in examples(data)} for data in (one.train, one.validation))
        assert train | selection <= of_training_split
        assert not train & selection
        assert one.train.targets.sum() == one.validation.targets.sum() == 512 == len(train) // 2


def examples(data: Data) -> list[tuple[list[int], int]]:
    """Tokens without padding, and label, in an order of their own."""
    rows = zip(data.inputs.tolist(), data.targets.tolist(), strict=True)
    return sorted(([token for token in tokens if token != 1], label) for tokens, label in rows)


def test_the_table_is_what_the_runs_say(
    roberta: str, root: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chunks = set(finished.rglob("*.parquet"))
    assert main([*smoke(roberta, root, finished), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    (batch,) = read_study(finished / "sst2").batches

    def accuracies(momentum: float) -> list[float]:
        return [batch.confirmed[Run(8, 0.5, seed, momentum)].final["test_accuracy"] for seed in seeds("confirm", 6)]

    sgd, sgdm = accuracies(0.0), accuracies(0.9)
    assert set(finished.rglob("*.parquet")) == chunks  # all was found
    assert len(batch.confirmed) == 12
    assert len(batch.tuned) == 2
    assert content["finished"]
    (row,) = content["rows"]
    assert row["task"] == "sst2"
    for rule, values in (("sgd", sgd), ("sgdm", sgdm)):
        assert row[rule]["lr"] == 0.5
        assert row[rule]["mean"] == pytest.approx(statistics.mean(values))
        assert row[rule]["sd"] == pytest.approx(statistics.stdev(values))
    assert row["decision"]["difference"] == pytest.approx(statistics.mean(sgdm) - statistics.mean(sgd))
    assert row["decision"]["pairs"] == 6
    assert row["decision"]["margin"] == 0.01
    assert row["zero_shot"] == pytest.approx(untrained_accuracy(roberta, root))
    assert row["zero_shot"] not in (0.0, 1.0)
    assert content["settings"]["k"] == 4
    assert "data" not in content["settings"]


def untrained_accuracy(model: str, root: Path) -> float:
    """Of the model on the 16 test rows of the smoke test, with transformers alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    language_model = transformers.RobertaForMaskedLM.from_pretrained(model).eval()
    words = [tokenizer(f" {word}", add_special_tokens=False)["input_ids"][0] for word in ("terrible", "great")]
    rows = evaluation_rows(TASKS["sst2"], 16, root)
    right = 0
    for (text,), label in zip(rows.texts, rows.labels, strict=True):
        tokens = tokenizer(f"{text} It was<mask>.", return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = language_model(input_ids=tokens).logits[0, tokens[0].tolist().index(tokenizer.mask_token_id)]
        right += int(logits[words].argmax() == label)
    return right / len(rows)


def test_text_and_files(roberta: str, root: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(smoke(roberta, root, finished)) == 0
    said = capsys.readouterr().out

    assert "Few-shot fine-tuning of" in said
    assert "in all" not in said  # of a single part
    assert re.search(r"sst2\s+14\s+56\s+about", said)
    assert re.search(r"zero-shot .* SGD η .* SGDM η .* difference \(97.5 %\)", said)
    figures = {f"finetune-{name}.{kind}" for name in ("differences", "accuracy") for kind in ("png", "svg")}
    assert {path.name for path in finished.iterdir()} == figures | {"finetune.html", "finetune.json", "sst2"}
    assert json.loads((finished / "finetune.json").read_text())["rows"][0]["task"] == "sst2"


def test_a_plan_writes_nothing(roberta: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [*smoke(roberta, root, tmp_path / "none"), "--tasks", "sst2,trec", "--plan"]
    assert main(asked) == 0
    said = capsys.readouterr().out
    assert re.search(r"in all\s+28\s+112\s+about \d+ .*GB", said)
    assert main([*asked, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)

    assert list(content["parts"]) == ["sst2", "trec"]
    assert content["in_all"]["runs"] == [28, 28]
    assert content["in_all"]["seconds"][0] > 0
    assert content["in_all"]["memory"] > 1e8
    assert not (tmp_path / "none").exists()


def test_a_spent_budget_leaves_what_is_finished(roberta: str, root: Path, finished: Path) -> None:
    given = preset(PRESETS, "smoke", head="prompt", lr=(0.5,), model=roberta, data=root, tasks=("sst2", "trec"))
    found = run_finetune(given, out=finished, workers=2, deadline=time.time() + 0.01)

    assert [row.task for row in found.rows] == ["sst2"]
    assert found.rows[0].finished
    assert not found.finished
    page = finetune_page(found)
    assert page.notice == "Not finished: trec has none. The same command goes on."


def test_a_budget_without_room_for_a_run_is_refused(
    roberta: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*smoke(roberta, root, tmp_path), "--time-budget", "0.0001"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tasks", "cola"], "unknown text task 'cola': choose one of sst2, sst5, trec, snli, mnli"),
        (["--tasks", "sst2,sst2"], "tasks are sst2,sst2, but must be one or several, each once"),
        (["--seeds", "5"], "seeds is 5, but must be at least 6"),
        (["--k", "2000"], "k = 2000 requires 4000 (2000 to train and 2000 to select on): take k of at most 525"),
        (["--model", "nobody/nothing"], "--model: cannot load the tokenizer 'nobody/nothing'"),
        (["--data", "nowhere"], "--data: there is no folder"),
        (["--lr", "-1"], "lr is -1.0, but must be finite effective learning rates above 0"),
        (["--length", "100"], "length is 100, but must be from 8 to 62"),
    ],
)
def test_refusals_are_one_line(
    options: list[str],
    message: str,
    roberta: str,
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*smoke(roberta, root, tmp_path), *options]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_without_network_and_folder_the_flag_is_said(
    roberta: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LIGHTBALL_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", None)
    asked = ["reproduce", "finetune", "--scale", "smoke", "--model", roberta, "--out", str(tmp_path)]
    assert main(asked) == 2
    assert "lightball: --data: task 'sst2' comes from the Hugging Face hub" in capsys.readouterr().err


def test_a_model_without_a_masked_lm_head_and_split_words_are_refused(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("headless", "short"):
        (tmp_path / name).mkdir()
    headless = save_roberta(tmp_path / "headless", ["terrible", "great"], head=False)
    short = save_roberta(tmp_path / "short", ["terrible", "great"])

    assert main(smoke(headless, root, tmp_path / "out")) == 2
    assert "has no trained masked-LM head" in capsys.readouterr().err
    assert main([*smoke(short, root, tmp_path / "out"), "--tasks", "trec"]) == 2
    assert re.search(r"label word 'Expression' of task 'trec' is \d+ tokens", capsys.readouterr().err)
