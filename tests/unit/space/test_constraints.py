import pytest

from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.constraints import EncoderBelow, HeadsAtMost, TotalBelow
from stillhouse.space.counts import Ends

BASE = BertArchitecture(layers=12, hidden_size=768, heads=12, ffn_size=3072)


@pytest.mark.parametrize(("parameters", "allowed"), [(85_054_464, False), (85_054_465, True)])
def test_encoder_below(parameters, allowed):
    rule = EncoderBelow(parameters=parameters)
    assert rule.allows(BASE) is allowed
    assert rule.name == "encoder_parameters"


@pytest.mark.parametrize(("parameters", "allowed"), [(109_483_778, False), (109_483_779, True)])
def test_total_below(parameters, allowed):
    ends = Ends(vocab_size=30522, positions=512, token_types=2, labels=2)
    rule = TotalBelow(parameters=parameters, ends=ends)
    assert rule.allows(BASE) is allowed
    assert rule.description.startswith("fewer than 109,483,77")


@pytest.mark.parametrize(("heads", "allowed"), [(11, False), (12, True)])
def test_heads_at_most(heads, allowed):
    assert HeadsAtMost(heads=heads).allows(BASE) is allowed
