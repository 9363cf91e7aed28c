"""Prompts and the masked-LM head, with a RoBERTa of random weights and a byte-level BPE made here."""

import os

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch

from lightball import InputError
from lightball.oracles import build
from lightball.training import Recipe, train
from lightball.workloads import check
from lightball.workloads.text import TASKS, few_shot
from lightball.workloads.text.encoding import Encoder, word_ids
from lightball.workloads.text.models import PromptClassifier
from lightball.workloads.text.pretrained import load_tokenizer, load_weights
from lightball.workloads.text.reading import Rows

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when transformers is imported
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

GOOD = ["a great film", "great fun , and moving", "it is great", "a good , great story", "great acting", "so great"]
BAD = ["a terrible film", "terrible , and dull", "it is terrible", "a bad , terrible story", "terrible acting", "oh no"]
WORDS = sorted({word for task in TASKS.values() for word in task.words} - {"Expression"})


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    """A folder with a tokenizer that knows the label words, but splits "Expression", and a model of two layers."""
    folder = tmp_path_factory.mktemp("roberta")
    bpe = tokenizers.ByteLevelBPETokenizer()
    texts = [*GOOD, *BAD, *(f"so {word} It was" for word in WORDS)] * 4
    bpe.train_from_iterator(texts, vocab_size=600, min_frequency=2, special_tokens=SPECIAL, show_progress=False)
    bpe.save_model(str(folder))
    tokenizer = transformers.RobertaTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.model_max_length = 62
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    transformers.RobertaForMaskedLM(config(len(tokenizer))).save_pretrained(folder)
    return str(folder)


SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def config(vocab_size):
    return transformers.RobertaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        initializer_range=0.2,
        type_vocab_size=1,
    )


@pytest.fixture
def root(tmp_path):
    for name in ("train", "validation"):
        (tmp_path / "sst2").mkdir(exist_ok=True)
        rows = {"sentence": [*GOOD, *BAD], "label": [1] * 6 + [0] * 6}
        parquet.write_table(pa.table(rows), tmp_path / "sst2" / f"{name}-0.parquet")
    return tmp_path


def prompts(task, model, *texts, length=60):
    encoded = Encoder(TASKS[task], model, "prompt", length)(Rows(texts, (0,) * len(texts)))
    return [[token for token in row if token != 1] for row in encoded.inputs.tolist()]


def pieces(model, tokens):
    return " ".join(load_tokenizer(model).convert_ids_to_tokens(tokens))


@pytest.mark.parametrize(
    ("task", "texts", "written"),
    [  # as the MeZO code puts them together: *cls**sent_0*_It_was*mask*.*sep+* and so on
        ("sst2", ("a great film",), ["a great film", " It was", "<mask>", "."]),
        ("trec", ("so great",), ["<mask>", ":", " so great"]),
        ("mnli", ("it is great.", "It was dull"), ["it is great", "?", "<mask>", ",", " it was dull"]),
        ("snli", ("it is great", ""), ["it is great", "?", "<mask>", ",", " "]),
    ],
)
def test_a_prompt_is_what_its_parts_are_between_beginning_and_end(roberta, task, texts, written):
    tokenizer = load_tokenizer(roberta)
    expected = [0, *(i for part in written for i in tokenizer.encode(part, add_special_tokens=False)), 2]

    (tokens,) = prompts(task, roberta, texts)

    assert pieces(roberta, tokens) == pieces(roberta, expected)
    assert tokens.count(tokenizer.mask_token_id) == 1


def test_rows_end_in_padding_up_to_the_longest(roberta):
    data = Encoder(TASKS["sst2"], roberta, "prompt")(Rows(((GOOD[0],), (GOOD[1],)), (1, 0)))

    lengths = [len(row) for row in prompts("sst2", roberta, (GOOD[0],), (GOOD[1],))]
    assert data.inputs.shape == (2, max(lengths))
    assert data.inputs.dtype == torch.int64
    assert (data.inputs != 1).sum(1).tolist() == lengths
    assert data.inputs[0, : lengths[0]].ne(1).all()
    assert data.targets.tolist() == [1, 0]


def test_a_long_sentence_loses_its_end_and_the_template_stays(roberta):
    (whole,) = prompts("sst2", roberta, ("great " * 12,))
    (short,) = prompts("sst2", roberta, ("great " * 12,), length=12)

    assert len(short) == 12
    assert short[:7] == whole[:7]
    assert short[-5:] == whole[-5:]  # " It", " was", mask, ".", end


def test_of_a_pair_the_longer_loses_its_end(roberta):
    long, short = "great " * 12, "It is bad"
    for texts in ((long, short), (short, long)):
        (tokens,) = prompts("snli", roberta, texts, length=16)
        words = pieces(roberta, tokens)
        assert len(tokens) == 16
        assert "? <mask> ," in words
        assert words.count("bad") == 1


def test_a_length_without_room_is_refused(roberta):
    with pytest.raises(InputError, match=r"length is 3, but must be from 8 to 62"):
        Encoder(TASKS["sst2"], roberta, "prompt", 3)
    with pytest.raises(InputError, match=r"length is 128, but must be from 8 to 62, the tokens that"):
        Encoder(TASKS["sst2"], roberta, "classifier", 128)


def test_a_label_word_in_several_tokens_is_refused_with_its_pieces(roberta, root):
    assert [pieces(roberta, [i]) for i in word_ids(TASKS["sst2"], roberta)] == ["Ġterrible", "Ġgreat"]
    with pytest.raises(InputError, match=r"label word 'Expression' of task 'trec' is \d+ tokens .*\['Ġ.*'\], but must"):
        word_ids(TASKS["trec"], roberta)


def literal_logits(folder, rows, words):
    """One example after the other, without padding, over the whole vocabulary."""
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    values = []
    for row in rows:
        tokens = row[row != 1]
        (at,) = (tokens == 4).nonzero().flatten().tolist()
        values.append(model(input_ids=tokens[None]).logits[0, at, list(words)])
    return torch.stack(values)


def test_logits_are_those_of_the_label_words_at_the_mask(roberta, root):
    workload = few_shot("sst2", roberta, head="prompt", k=3, data=root, length=40)
    model = build(workload.model, 0).eval()
    rows = workload.test.inputs

    with torch.no_grad():
        logits = model(torch.nn.functional.pad(rows, (0, 5), value=1))
        expected = literal_logits(roberta, rows, word_ids(TASKS["sst2"], roberta))
        model.head_name = None  # as for a head that is not known: all logits, then some
        slowly = model(rows)

    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(slowly, expected, atol=1e-5, rtol=1e-5)


def test_berts_head_is_asked_at_the_mask_too():
    torch.manual_seed(0)
    bert = transformers.BertForMaskedLM(
        transformers.BertConfig(
            vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
        )
    ).eval()
    rows = torch.tensor([[2, 9, 4, 3, 0], [2, 4, 8, 7, 3]])

    with torch.no_grad():
        logits = PromptClassifier(bert, [11, 12], padding=0, mask=4).eval()(rows)
        expected = bert(input_ids=rows, attention_mask=(rows != 0).long()).logits

    torch.testing.assert_close(logits, torch.stack((expected[0, 2], expected[1, 1]))[:, [11, 12]])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_prompted_model_trains(roberta, root, momentum):
    workload = check(few_shot("sst2", roberta, head="prompt", k=3, data=root, dropout=0.0), together=False)
    history = train(workload.of_seed(1), Recipe(6, 0.3, momentum, epochs=40, eval_every=40), seed=1)

    assert history.failed_at is None
    assert history.points[-1].train_loss < 0.7 * history.points[0].train_loss


def test_weights_that_a_checkpoint_lacks_do_not_move_what_is_drawn(roberta, root):
    """As in a worker, where the first model that is made loads the weights, and draws a pooling layer in doing so."""
    workload = few_shot("sst2", roberta, k=3, data=root, pooling="first")
    load_weights.cache_clear()
    loading, copied = build(workload.model, 1), build(workload.model, 1)
    assert torch.equal(loading.head.weight, copied.head.weight)
    assert loading.separator is None  # RoBERTa does not number the sentences


def test_the_language_model_stays_tied_and_dropout_is_an_option(roberta, root):
    def made(**options):
        return build(few_shot("sst2", roberta, head="prompt", k=3, data=root, length=40, **options).model, 0)

    model = made(dropout=0.0)
    tied = model.language_model
    assert tied.lm_head.decoder.weight is tied.roberta.embeddings.word_embeddings.weight
    rows = torch.tensor([[0, 20, 21, 4, 2]])
    with torch.no_grad():
        assert torch.equal(model.train()(rows), model.eval()(rows))
        own = made()
        assert not torch.equal(own.train()(rows), own.eval()(rows))
    with pytest.raises(InputError, match="dropout is 1, but must be a number from 0 up and below 1"):
        made(dropout=1)
