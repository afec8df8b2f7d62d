import sys
from collections import Counter

import pytest
from transformers import AutoTokenizer

from stillhouse.data.embedded import collect_docstrings, train_tokenizer
from stillhouse.data.task import TaskSettings, load_task
from stillhouse.errors import DataError

SENTENCE = "says a thing of more than six words"


@pytest.fixture(scope="module")
def embedded():
    return load_task(TaskSettings())


def test_the_standard_library_makes_a_task(embedded):
    assert len(embedded.label_names) == 20
    assert embedded.label_names == tuple(sorted(embedded.label_names))
    assert {"asyncio", "email", "logging"} <= set(embedded.label_names) <= sys.stdlib_module_names
    assert embedded.metrics == ("accuracy", "f1_macro")
    assert len(embedded.train) + len(embedded.dev) > 2_500


def test_texts_are_distinct_short_and_capped(embedded):
    texts = [*embedded.train["text_a"], *embedded.dev["text_a"]]
    assert len(set(texts)) == len(texts)
    assert all(6 <= len(text.split()) <= 60 for text in texts)
    assert all(text == " ".join(text.split()) for text in texts)
    labels = Counter([*embedded.train["label"], *embedded.dev["label"]])
    assert max(labels.values()) <= 500


def test_dev_is_15_percent_of_every_class(embedded):
    dev, train = Counter(embedded.dev["label"]), Counter(embedded.train["label"])
    for label, count in dev.items():
        assert abs(count - 0.15 * (count + train[label])) <= 1


def test_a_known_docstring_carries_its_module(embedded):
    texts = dict(zip(embedded.train["text_a"], embedded.train["label"], strict=True))
    texts.update(zip(embedded.dev["text_a"], embedded.dev["label"], strict=True))
    import logging.handlers  # noqa: PLC0415

    text = " ".join(logging.handlers.RotatingFileHandler.doRollover.__doc__.split())
    assert embedded.label_names[texts[text]] == "logging"


def test_loading_again_gives_the_same(embedded):
    assert load_task(TaskSettings()).fingerprint() == embedded.fingerprint()


def test_docstrings_of_all_kinds_are_read_and_shared_ones_dropped(write, tmp_path):
    write(
        "alpha/one.py",
        f'"""Module {SENTENCE}."""\nclass A:\n    """Class\n\n    {SENTENCE}."""\n'
        f'    async def f(self):\n        """Method {SENTENCE}."""\n'
        f'def g():\n    """Shared {SENTENCE}."""\ndef h():\n    """Too short."""\n'
        "raise SystemExit\n",
    )
    write("alpha/two.py", f'"""Method {SENTENCE}."""\n')
    write(
        "beta.py",
        f'def g():\n    """Shared {SENTENCE}."""\n    def k():\n        "Inner {SENTENCE}"\n',
    )
    write("broken.py", "def (:\n")
    write("test/gamma.py", f'"""Test {SENTENCE}."""\n')
    names, examples = collect_docstrings(tmp_path)
    assert names == ("alpha", "beta")
    found = {(names[i], t) for t, i in zip(examples.text_a, examples.labels, strict=True)}
    assert found == {
        ("alpha", f"Module {SENTENCE}."),
        ("alpha", f"Class {SENTENCE}."),
        ("alpha", f"Method {SENTENCE}."),
        ("beta", f"Inner {SENTENCE}"),
    }


def test_the_most_frequent_modules_are_kept(write, tmp_path):
    for number in range(22):
        docs = [f'def f{i}():\n    "Number {number} {i} {SENTENCE}"\n' for i in range(number + 1)]
        write(f"m{number:02}.py", "".join(docs))
    names, examples = collect_docstrings(tmp_path)
    assert names == tuple(f"m{number:02}" for number in range(2, 22))
    assert len(examples) == sum(range(3, 23))


def test_too_few_sources_are_refused(write, tmp_path):
    write("alpha.py", f'"""Module {SENTENCE}."""\n')
    with pytest.raises(DataError, match="docstrings of 1 modules"):
        collect_docstrings(tmp_path)


def test_training_a_tokenizer_again_gives_the_same(embedded):
    texts = embedded.train[:]["text_a"]
    vocabularies = [train_tokenizer(texts).get_vocab() for _ in range(4)]
    assert all(vocabulary == vocabularies[0] for vocabulary in vocabularies)
    assert sorted(vocabularies[0].values()) == list(range(4_000))


def test_a_small_vocabulary_keeps_every_character():
    tokenizer = train_tokenizer(["abc cab", "Bca"], vocab_size=8)
    assert set(tokenizer.get_vocab()) == {
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "##a", "##b", "##c",
    }  # fmt: skip


def test_the_tokenizer_survives_saving(embedded, tmp_path):
    texts = embedded.train[:]["text_a"]
    tokenizer = train_tokenizer(texts)
    assert len(tokenizer) == 4_000
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3, 4]) == [
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]",
    ]  # fmt: skip
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    pair = loaded("Return the Logger", "an XML file")
    assert dict(pair) == dict(tokenizer("Return the Logger", "an XML file"))
    words = loaded.convert_ids_to_tokens(pair["input_ids"])
    assert words == ["[CLS]", "return", "the", "logger", "[SEP]", "an", "xml", "file", "[SEP]"]
    assert pair["token_type_ids"] == [0] * 5 + [1] * 4
