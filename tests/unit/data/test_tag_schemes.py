import pytest

from stillhouse.data.tag_schemes import TagSet, are_chunk_tags, check_names, check_schemes
from stillhouse.errors import DataError

# One text in each scheme: [a b]PER o [c]PER [d]PER o / [e f g]LOC [h]PER
SCHEMES = {
    "IOB2": "B-PER I-PER O B-PER B-PER O / B-LOC I-LOC I-LOC B-PER",
    "IOB1": "I-PER I-PER O I-PER B-PER O / I-LOC I-LOC I-LOC I-PER",
    "IOBES": "B-PER E-PER O S-PER S-PER O / B-LOC I-LOC E-LOC S-PER",
    "BILOU": "B-PER L-PER O U-PER U-PER O / B-LOC I-LOC L-LOC U-PER",
    "BMES": "B-PER E-PER O S-PER S-PER O / B-LOC M-LOC E-LOC S-PER",
}
NAMES = tuple(sorted({tag for text in SCHEMES.values() for tag in text.split()} - {"/"}))


def tag_set(text, where="t", names=NAMES):
    tags = [[names.index(tag) for tag in part.split()] for part in text.split("/")]
    return TagSet(tags=tags, where=where)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_scheme_is_found(scheme):
    assert check_schemes(tag_set(SCHEMES[scheme]), [], NAMES) == scheme


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("other", SCHEMES)
def test_another_scheme_of_dev_is_refused(scheme, other):
    train, dev = tag_set(SCHEMES[scheme], "train"), tag_set(SCHEMES[other], "dev")
    if scheme == other:
        assert check_schemes(train, [dev], NAMES) == scheme
        return
    with pytest.raises(DataError, match=f"^dev is tagged in {other}, but train in {scheme} "):
        check_schemes(train, [dev], NAMES)


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("B-PER O / O B-LOC", "IOB2"),  # begins alone
        ("I-PER I-PER O", "IOB1"),  # insides alone
        ("O S-PER O", "IOBES"),
        ("O O / O", "IOB2"),  # no chunk at all
    ],
)
def test_few_marks_are_enough(text, scheme):
    assert check_schemes(tag_set(text), [], NAMES) == scheme


def test_dev_without_chunks_fits_every_scheme():
    for text in SCHEMES.values():
        check_schemes(tag_set(text), [tag_set("O O / O")], NAMES)


def test_slips_are_counted_or_refused(caplog):
    whole = " / ".join([SCHEMES["IOB2"]] * 20)
    assert check_schemes(tag_set(f"{whole} / O I-PER I-PER"), [], NAMES) == "IOB2"
    assert "1 of 162 words in chunks break IOB2, the first by 'I-PER' in sentence 41" in caplog.text
    mixed = " / ".join([SCHEMES["IOB2"], SCHEMES["BILOU"]] * 3)
    with pytest.raises(DataError, match=r"follow none of the schemes IOB2, IOB1.* words in chunks"):
        check_schemes(tag_set(mixed), [], NAMES)
    with pytest.raises(DataError, match=r"^dev: the tags follow none"):
        check_schemes(tag_set(whole), [tag_set(mixed, "dev")], NAMES)


def test_marks_may_stand_alone():
    names = ("B", "I", "O")
    assert check_schemes(tag_set("B I O / O B B", names=names), [], names) == "IOB2"


def test_chunk_tags_are_told_by_their_names():
    assert are_chunk_tags(NAMES)
    assert are_chunk_tags(("O", "B"))
    assert not are_chunk_tags(("O",))
    assert not are_chunk_tags(("NOUN", "VERB"))
    assert not are_chunk_tags(("B-PER", "O", "X"))


def test_names_of_two_minds_are_refused():
    with pytest.raises(DataError, match=r"t: tags such as .* but 'X', 'per' beside them"):
        check_names(("B-PER", "I-PER", "O", "X", "per"), where="t")
    for names in (NAMES, ("NOUN", "O"), ("B-x", "NOUN"), ("S-", "V-", "O")):
        check_names(names, where="t")
