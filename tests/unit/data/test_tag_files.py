import pytest

from stillhouse.data.tag_files import is_column_file, read_columns, read_conllu
from stillhouse.errors import DataError

CONLL_2003 = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

# CD B-NP O
1 CD I-NP O


-DOCSTART- -X- -X- O

Blackburn NNP B-NP B-PER
"""
CONLL_U = """# newdoc id = a
# text = I don't know
1\tI\tI\tPRON\tPRP\t_\t4\tnsubj\t_\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdo\tdo\tAUX\tVBP\t_\t4\taux\t_\t_
3\tn't\tnot\tPART\tRB\t_\t4\tadvmod\t_\t_
4\tknow\tknow\tVERB\tVB\t_\t0\troot\t_\t_
4.1\tit\tit\tPRON\tPRP\t_\t_\t_\t_\t_

# text = New York !
1\tNew York\tNew York\tPROPN\tNNP\t_\t0\troot\t_\t_
2\t#\t#\tSYM\t#\t_\t1\tpunct\t_\t_
"""


def test_columns_are_words_and_last_tags(write):
    sentences = read_columns(write("a.conll", CONLL_2003))
    assert sentences == [
        (["EU", "rejects"], ["B-ORG", "O"]),
        (["#", "1"], ["O", "O"]),
        (["Blackburn"], ["B-PER"]),
    ]


def test_other_columns_have_numbers(write):
    path = write("a.conll", CONLL_2003)
    assert read_columns(path, tag=2)[0].tags == ["NNP", "VBZ"]
    assert read_columns(path, word=2, tag=3)[0] == (["NNP", "VBZ"], ["B-NP", "B-VP"])
    assert read_columns(write("b.conll", "EU\nrejects\n")) == [(["EU", "rejects"], [])]
    with pytest.raises(DataError, match=r"4 column\(s\), but tags are looked for in column 5"):
        read_columns(path, tag=5)
    with pytest.raises(DataError, match="words are looked for in column 6"):
        read_columns(path, word=6)


def test_tabs_part_columns_if_all_lines_have_them(write):
    text = (
        "-DOCSTART- O\n\n# a.de\t2009\t[x]\n1\tNew York\tB-LOC\tO\n2\t\u00a0\tO\tO\n\n1\tso\tO\tO\n"
    )
    assert read_columns(write("a.iob", text), word=2, tag=3) == [
        (["New York", "\u00a0"], ["B-LOC", "O"]),
        (["so"], ["O"]),
    ]
    blanks = "EU  B-ORG\nis\tO \nno\u00a0break O\r\n"
    assert read_columns(write("b.iob", blanks)) == [
        (["EU", "is", "no\u00a0break"], ["B-ORG", "O", "O"])
    ]


@pytest.mark.parametrize("comment", ["# a comment of words", "#", "# id = 3", "#id=3 domain=en"])
def test_comments_are_skipped(write, comment):
    path = write("a.bio", f"{comment}\nEU NNP B-ORG\n# # O\n{comment}\n\n{comment}\nit PRP O\n")
    assert read_columns(path) == [(["EU", "#"], ["B-ORG", "O"]), (["it"], ["O"])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("EU NNP B-ORG\nis O\nso RB O\n", r"a\.col, line 2: 2 column\(s\) where most lines have 3"),
        ("\n\n", "holds no word"),
        ("# only a comment\n", "holds no word"),
        ("-DOCSTART- O\n\n-DOCSTART- O\n", "holds no word"),
    ],
)
def test_broken_columns_are_refused(write, text, message):
    with pytest.raises(DataError, match=message):
        read_columns(write("a.col", text))


def test_conllu_skips_ranges_empty_nodes_and_comments(write):
    path = write("a.conllu", CONLL_U)
    assert read_conllu(path) == [
        (["I", "do", "n't", "know"], ["PRON", "AUX", "PART", "VERB"]),
        (["New York", "#"], ["PROPN", "SYM"]),
    ]
    assert read_conllu(path, tag="xpos")[1].tags == ["NNP", "#"]
    assert read_conllu(path, tag="deprel")[0].tags == ["nsubj", "aux", "advmod", "root"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\tI\tPRON\n", r"a\.conllu, line 1: 3 columns where CoNLL-U has 10"),
        ("# x\nI\t" + "\t".join("_" * 9) + "\n", "line 2: 'I' is no number of a word"),
        ("# only\n\n", "holds no word"),
    ],
)
def test_broken_conllu_is_refused(write, text, message):
    with pytest.raises(DataError, match=message):
        read_conllu(write("a.conllu", text))


def test_names_of_column_files():
    assert is_column_file("a/B.IOB2")
    assert is_column_file("conll:train.txt")
    assert not is_column_file("train.txt")


@pytest.mark.data
@pytest.mark.parametrize(("name", "count"), [("train.txt", 8_936), ("test.txt", 2_012)])
def test_conll_2000_has_its_sentences(data_folder, name, count):
    sentences = read_columns(data_folder("tagging/conll2000") / name)
    assert len(sentences) == count
    words = [word for sentence in sentences for word in sentence.words]
    assert len(words) == {8_936: 211_727, 2_012: 47_377}[count]
    assert {"train.txt": 36, "test.txt": 11}[name] == sum(word[0] == "#" for word in words)


@pytest.mark.data
@pytest.mark.parametrize(("part", "count"), [("train", 12_544), ("dev", 2_001), ("test", 2_077)])
def test_ewt_has_its_sentences(data_folder, part, count):
    path = data_folder("tagging/ud_ewt") / f"en_ewt-ud-{part}.conllu"
    sentences = read_conllu(path)
    assert len(sentences) == count
    upos = {tag for sentence in sentences for tag in sentence.tags}
    assert len(upos - {"_"}) == 17  # the universal parts of speech
