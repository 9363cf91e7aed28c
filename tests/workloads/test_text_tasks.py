import pytest

from lightball import InputError
from lightball.workloads.text.tasks import TASKS, find_task

# As printed: task, template, label words.
PRINTED = """
| SST-2 | `<s> It was <mask>.` | terrible, great |
| SST-5 | `<s> It was <mask>.` | terrible, bad, okay, good, great |
| SNLI, MNLI | `<s1> ? <mask> , <s2>` | contradiction No, entailment Yes, neutral Maybe |
| TREC | `<mask> : <s>` | Description, Entity, Expression, Human, Location, Number |
"""
# The classes of TREC's six words: DESC, ENTY, ABBR, HUM, LOC, NUM.
TREC = {"DESC": "Description", "ENTY": "Entity", "ABBR": "Expression", "HUM": "Human", "LOC": "Location"}


def printed():
    for line in PRINTED.strip().splitlines():
        names, template, words = (cell.strip() for cell in line.strip("|").split("|"))
        for name in names.split(", "):
            yield name.lower().replace("-", ""), template.strip("`"), words.split(", ")


@pytest.mark.parametrize(("name", "template", "words"), list(printed()))
def test_templates_and_label_words_are_the_printed_ones(name, template, words):
    task = TASKS[name]

    assert task.template == template
    if name == "trec":
        assert sorted(task.words) == sorted(words)
        assert dict(zip(task.labels, task.words, strict=True)) == {**TREC, "NUM": "Number"}
    elif task.pair:
        assert {f"{label} {word}" for label, word in zip(task.labels, task.words, strict=True)} == set(words)
    else:
        assert list(task.words) == words


def test_every_printed_task_is_there_with_a_word_a_label():
    assert set(TASKS) == {name for name, _, _ in printed()}
    for name, task in TASKS.items():
        assert task.name == name
        assert len(task.words) == len(set(task.words)) == len(task.labels)
        assert set(task.scarce) <= set(task.labels)


def test_another_task_is_refused():
    with pytest.raises(InputError, match="unknown text task 'cola': choose one of sst2, sst5, trec, snli, mnli"):
        find_task("cola")
