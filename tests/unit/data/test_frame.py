import pytest
from transformers import BertTokenizer

from stillhouse.data.frame import frame_of
from stillhouse.errors import DataError


@pytest.mark.parametrize("texts", [1, 2])
def test_a_frame_is_what_the_tokeniser_puts_around_texts(any_pieces, texts):
    given = ["the cat sat", "who was looking"][:texts]
    frame = frame_of(any_pieces, texts)
    ids, types = list(frame.gaps[0]), list(frame.gap_types[0])
    for text, kind, gap, gap_types in zip(
        given, frame.text_types, frame.gaps[1:], frame.gap_types[1:], strict=True
    ):
        inner = any_pieces(text, add_special_tokens=False)["input_ids"]
        ids += [*inner, *gap]
        types += [*[kind] * len(inner), *gap_types]
    whole = any_pieces(*given, return_token_type_ids=True)
    assert ids == whole["input_ids"]
    if "token_type_ids" in any_pieces.model_input_names:
        assert types == whole["token_type_ids"]
    assert frame.count == any_pieces.num_special_tokens_to_add(pair=texts == 2)


def test_token_types_of_a_tokeniser_without_them_are_0(word_pieces, tmp_path):
    word_pieces.save_pretrained(tmp_path)
    plain = BertTokenizer.from_pretrained(
        tmp_path, model_input_names=["input_ids", "attention_mask"]
    )
    frame = frame_of(plain, 2)
    assert frame.text_types == (0, 0)
    assert not any(types.any() for types in frame.gap_types)
    assert frame_of(word_pieces, 2).text_types == (0, 1)


def test_a_tokeniser_without_a_fast_backend_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(DataError, match="Slow has no fast backend"):
        frame_of(Slow(), 1)
