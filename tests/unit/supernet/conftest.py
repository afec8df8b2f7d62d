"""Teachers of some thousand weights, spaces inside them, and what an ordinary model computes."""

import pytest
import torch

from stillhouse.distill.relations import QueryKeyValue
from stillhouse.model.encoders import bare_anatomy, build_encoder
from stillhouse.model.students import student_config
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.search_space import Dimension, SearchSpace


def randomised(model):
    """Random biases and norms too, so that no mix-up goes unseen; norms that keep tokens apart."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            is_scale = name.endswith("weight") and weight.ndim == 1
            weight.normal_(mean=float(is_scale), std=0.3, generator=generator)
    return model.eval()


@pytest.fixture(scope="session")
def make_teacher(tiny_config):
    """Makes a bare encoder of 6 layers of 32 with 4 heads of 8."""

    def make(family="bert", **more):
        sizes = {
            "num_hidden_layers": 6,
            "hidden_size": 32,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            **more,
        }
        return randomised(build_encoder(tiny_config(family, **sizes), seed=0))

    return make


@pytest.fixture(scope="session")
def make_free_teacher(make_teacher):
    """Makes one of 6 layers of 20 with 4 heads of 8, after BERT or RoBERTa."""

    def make(family):
        shape = BertArchitecture(layers=6, hidden_size=20, heads=4, head_size=8, ffn_size=40)
        config = student_config(shape, make_teacher(family).config)
        return randomised(build_encoder(config, seed=0))

    return make


def space_of(**dimensions):
    given = {"layers": (1, 2, 4), "ffn_size": (24, 40), "head_size": (8,), **dimensions}
    return SearchSpace(tuple(Dimension(name, values) for name, values in given.items()))


@pytest.fixture(scope="session")
def free_space():
    """Students of 54 shapes, of which some have heads that share the width."""
    return space_of(hidden_size=(12, 16, 20), heads=(2, 3, 4))


@pytest.fixture(scope="session")
def shared_space():
    """Students of 48 shapes whose heads share the width."""
    return space_of(hidden_size=(8, 16, 24, 32), layers=(2, 3, 4, 6), ffn_size=(24, 40, 64))


@pytest.fixture(scope="session")
def tokens():
    """Three rows of 11 token numbers, of which the last ones of two are padding."""
    ids_BT = torch.randint(3, 50, (3, 11), generator=torch.Generator().manual_seed(1))
    mask_BT = (torch.arange(11) < torch.tensor([11, 7, 4])[:, None]).long()
    return ids_BT, mask_BT


def run_plain(model, ids_BT, mask_BT):
    anatomy = bare_anatomy(model.config)
    last = model.get_submodule(anatomy.layers)[-1]
    seen, handles = {}, []
    for name in ("query", "key", "value"):

        def keep(_, __, output, name=name):
            seen[name] = output

        handles.append(last.get_submodule(getattr(anatomy, name)).register_forward_hook(keep))
    model(input_ids=ids_BT, attention_mask=mask_BT)
    for handle in handles:
        handle.remove()
    return QueryKeyValue(**seen)


@pytest.fixture(scope="session")
def plain_projections():
    """Runs an ordinary model in full and tells the projections of its last layer."""
    return run_plain


@pytest.fixture(scope="session")
def kept_of_six():
    """Layers of a teacher of six that students of so many layers take, worked out by hand."""
    return {
        1: (0,),
        2: (0, 3),
        3: (0, 2, 4),
        4: (0, 1, 3, 4),
        5: (0, 1, 2, 3, 4),
        6: (0, 1, 2, 3, 4, 5),
    }
