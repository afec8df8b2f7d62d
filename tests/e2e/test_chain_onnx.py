"""A chain of all operations, exported to ONNX and run there.

Letters in names: B batch, T tokens.
"""

import warnings

import numpy as np
import onnxruntime
import pytest
import torch

from stillhouse.model.modeling_chain_bert import (
    ChainBertConfig,
    ChainBertForSequenceClassification,
)

LONGEST = 24


@pytest.fixture(scope="module")
def model():
    """A classifier with random biases and norms too, so that no mix-up goes unseen."""
    config = ChainBertConfig(
        vocab_size=50,
        embedding_size=12,
        blocks=[
            {"hidden_size": 16, "operations": ["S3", "M", "F"]},
            {"hidden_size": 8, "operations": ["S7", "M", "S5"]},
        ],
        head_size=4,
        max_position_embeddings=LONGEST,
        num_labels=3,
    )
    model = ChainBertForSequenceClassification(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            is_scale = name.endswith("LayerNorm.weight")
            weight.normal_(mean=float(is_scale), std=0.3, generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def session(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "chain.onnx"
    names = ("input_ids", "attention_mask")
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings():  # torch's own, of its own code
        warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec", FutureWarning)
        torch.onnx.export(
            model,
            (),
            path,
            kwargs={name: torch.ones((2, 6), dtype=torch.long) for name in names},
            dynamic_shapes=dict.fromkeys(names, free),
            output_names=["logits"],
            dynamo=True,
            verbose=False,
        )
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("lengths", [(1,), (2, 1), (LONGEST, 3, 11), (7, 7, 7, 7)])
@torch.no_grad()
def test_outputs_are_those_of_the_model(model, session, lengths):
    generator = torch.Generator().manual_seed(sum(lengths))
    longest = max(lengths)
    inputs = {
        "input_ids": torch.randint(0, 50, (len(lengths), longest), generator=generator),
        "attention_mask": (torch.arange(longest) < torch.tensor(lengths)[:, None]).long(),
    }
    expected = model(**inputs).logits.numpy()
    [found] = session.run(["logits"], {name: value.numpy() for name, value in inputs.items()})
    assert found.shape == (len(lengths), 3)
    assert np.abs(found - expected).max() <= 1e-4
