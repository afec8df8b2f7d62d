"""The tagger: what each view has seen, its widths, and that padding is not read."""

import numpy as np
import pytest
import torch

from stillhouse.data.lexicon import Lexicon
from stillhouse.data.word_batches import collate_words, encode_words
from stillhouse.model.word_tagger import (
    PUBLISHED,
    CrossViewTagger,
    TaggerSizes,
    set_word_vectors,
    word_logits,
)

TINY = TaggerSizes(
    word=6, character=4, filters=3, windows=(2, 3), first_units=8, first=5, second=4, module=6
)
LETTERS = "abcdefgh"
LEXICON = Lexicon(words=tuple(LETTERS), characters=tuple(LETTERS))
LONG, SHORT = ["a", "bc", "c", "dad", "e", "fee"], ["b", "ha"]


def build(seed=0, sizes=TINY, tags=3):
    return CrossViewTagger(
        sizes, words=LEXICON.word_count, characters=LEXICON.character_count, tags=tags, seed=seed
    )


def batch_of(*sentences):
    encoded = encode_words(sentences, LEXICON)
    return collate_words(encoded, np.arange(len(sentences)))


@pytest.fixture
def model():
    return build()


def test_padding_is_not_read(model):
    alone, beside = (model.tagger.encoder(batch_of(*each)) for each in ([SHORT], [LONG, SHORT]))
    for one, other in zip(alone, beside, strict=True):
        torch.testing.assert_close(other[1, :2], one[0])
        assert not other[1, 2:].any()


def test_forward_and_backward_views_see_one_side_alone(model):
    views = model.tagger.encoder(batch_of(LONG))
    for changed in range(len(LONG)):
        sentence = [*LONG[:changed], "gh", *LONG[changed + 1 :]]
        others = model.tagger.encoder(batch_of(sentence))
        moved = [
            [place for place in range(len(LONG)) if not torch.equal(one[0, place], two[0, place])]
            for one, two in zip(views, others, strict=True)
        ]
        assert moved[0] == list(range(changed, len(LONG)))
        assert moved[1] == list(range(changed + 1))
        assert moved[2] == list(range(len(LONG)))


def test_auxiliary_modules_read_their_own_view_alone(model):
    views = model.tagger.encoder(batch_of(LONG))
    told = model.auxiliary(views)
    reads = {
        "full": {0, 1, 2},
        "forward": {0},
        "backward": {1},
        "future": {0},
        "past": {1},
    }
    for place in range(3):
        parts = [part + 1.0 if number == place else part for number, part in enumerate(views)]
        other = model.auxiliary(type(views)(*parts))
        moved = {name for name in told if not torch.equal(told[name], other[name])}
        assert moved == {name for name, read in reads.items() if place in read}


def test_only_the_full_module_has_no_relu(model):
    bent = {name: part.is_bent for name, part in model.auxiliary.named_children()}
    assert [name for name, is_bent in bent.items() if not is_bent] == ["full"]
    assert model.tagger.primary.is_bent


def test_characters_are_convolved_and_pooled_as_by_hand(model):
    encoder = model.tagger.encoder
    batch = batch_of(["dad", "a"])
    found = encoder._spelt(batch.spellings_UJ)
    for row, word in ((batch.forms_BT[0, 0], "dad"), (batch.forms_BT[0, 1], "a")):
        ids = LEXICON.spelling(word)
        parts = []
        for window in encoder.windows:
            width = window.kernel_size[0]
            vectors = torch.zeros(len(ids) + width - 1, TINY.character)
            vectors[: len(ids)] = encoder.characters.weight[ids]
            sums = [
                (window.weight * vectors[start : start + width].T).sum(dim=(1, 2)) + window.bias
                for start in range(len(ids))
            ]
            parts.append(torch.stack(sums).clamp(min=0).amax(dim=0))
        torch.testing.assert_close(found[row], torch.cat(parts))


def test_words_are_scaled_by_one_number(model):
    batch = batch_of(LONG)
    with torch.no_grad():
        model.tagger.encoder.word_scale.fill_(2.0)
        twice = model.tagger(batch)
        model.tagger.encoder.word_scale.fill_(1.0)
        model.tagger.encoder.words.weight.mul_(2.0)
    torch.testing.assert_close(model.tagger(batch), twice)


def test_dropout_is_on_where_it_is_asked_for(model):
    batch = batch_of(LONG)
    assert torch.equal(model.tagger(batch), model.tagger(batch))
    torch.manual_seed(0)
    assert not torch.equal(model.tagger(batch, 0.5), model.tagger(batch, 0.5))


def test_first_weights_are_a_function_of_the_seed():
    one, same, other = build(), build(), build(seed=1)
    weights = [torch.cat([p.flatten() for p in each.parameters()]) for each in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    bias = one.tagger.encoder.first.bias_ih_l0_reverse
    assert bias.tolist() == [0.0] * 8 + [1.0] * 8 + [0.0] * 16  # input, forget, cell, output


def test_logits_of_a_set_stand_in_its_order(model):
    encoded = encode_words([SHORT, LONG, ["h"]], LEXICON)
    found = word_logits(model.tagger, encoded, batch_size=2)
    expected = [model.tagger(batch_of(each))[0] for each in (SHORT, LONG, ["h"])]
    np.testing.assert_allclose(found, torch.cat(expected).detach().numpy(), atol=1e-5)


def test_word_vectors_go_to_their_rows(model):
    before = model.tagger.encoder.words.weight.detach().clone()
    vectors = np.arange(12, dtype=np.float32).reshape(2, 6)
    set_word_vectors(model.tagger, np.array([4, 2]), vectors)
    after = model.tagger.encoder.words.weight
    assert torch.equal(after[[4, 2]], torch.from_numpy(vectors))
    assert torch.equal(after[[3, 5, 6]], before[[3, 5, 6]])


def test_the_published_sizes_are_built():
    model = build(sizes=PUBLISHED, tags=5)
    first = 4 * 1024 * (300 + 3 * 100) + 4 * 1024 * 512 + 512 * 1024 + 2 * 4 * 1024
    second = 4 * 512 * 1024 + 4 * 512 * 512 + 2 * 4 * 512
    windows = sum(100 * 50 * width + 100 for width in (2, 3, 4))
    tables = 10 * 300 + 10 * 50 + 1
    whole, half = (width * 512 + 512 + 512 * 5 + 5 for width in (2048, 512))
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == 2 * first + 2 * second + windows + tables + 2 * whole + 4 * half
    batch = batch_of(LONG, SHORT)
    views = model.tagger.encoder(batch, 0.5)
    assert [part.shape for part in views] == [(2, 6, 512), (2, 6, 512), (2, 6, 1024)]
