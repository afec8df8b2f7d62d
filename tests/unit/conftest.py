"""A clock to set on, and a latency profile of tiny BERTs, whose latencies follow their work."""

# ruff: noqa: PLC0415  torch and the like are imported only for tests that ask for them

from dataclasses import replace
from itertools import product

import pytest

REFERENCE_MS = 2.0
NOISE_FRACTION = 0.03


@pytest.fixture(scope="session")
def profiled_config():
    """The configuration of the teacher whose students are profiled."""
    from transformers import BertConfig

    return BertConfig(
        vocab_size=50,
        max_position_embeddings=24,
        num_hidden_layers=4,
        hidden_size=32,
        num_attention_heads=4,
        intermediate_size=64,
    )


@pytest.fixture(scope="session")
def profiled_shapes():
    """48 architectures, of which every second is measured."""
    from stillhouse.space.architecture import BertArchitecture

    return [
        BertArchitecture(layers=layers, hidden_size=width, heads=2, ffn_size=inner)
        for layers, width, inner in product((1, 2, 3, 4), (16, 24, 32), (16, 32, 48, 64))
    ]


@pytest.fixture(scope="session")
def features_told(profiled_config):
    """Makes the rows of features of some architectures."""
    from stillhouse.device.features import features_of
    from stillhouse.device.latency import Workload
    from stillhouse.device.predicted import bare_ends

    def tell(shapes):
        return features_of(shapes, bare_ends(profiled_config), Workload(length=16, threads=1))

    return tell


@pytest.fixture(scope="session")
def work_ms(features_told):
    """Milliseconds that follow the work of an architecture."""
    from stillhouse.device.features import FEATURES

    def tell(shape):
        named = dict(zip(FEATURES, features_told([shape])[0], strict=True))
        return 1 + 1e-6 * named["total: matrix_flops"] + 0.05 * named["total: count"]

    return tell


@pytest.fixture(scope="session")
def profile(profiled_config, profiled_shapes, features_told, work_ms):
    """A profile of PyTorch on another processor, measured with noise."""
    import numpy as np

    from stillhouse.device.latency import Workload
    from stillhouse.device.profile import Fingerprint, Row, Subject, fit_profile

    generator = np.random.default_rng(0)
    chosen = profiled_shapes[::2]
    rows = [
        Row(
            architecture=one.key,
            latency_ms=float(work_ms(one) * generator.normal(1, NOISE_FRACTION)),
            features=tuple(features),
        )
        for one, features in zip(chosen, features_told(chosen).tolist(), strict=True)
    ]
    subject = Subject(
        kind="cpu",
        fingerprint=Fingerprint(
            device="EPYC 9654, PyTorch 2.13.0", workload=Workload(length=16, threads=1)
        ),
        space="default",
        teacher="tiny",
        config=profiled_config.to_diff_dict(),
        points=len(rows),
        seed=3,
    )
    return fit_profile(
        subject,
        reference=chosen[5].to_dict(),
        reference_ms=REFERENCE_MS,
        rows=rows,
        noise_fraction=0.01,
        cost_s=12.5,
    )


@pytest.fixture
def profile_file(profile, tmp_path):
    """Writes the profile, for this machine where it is asked to; gives the file's name."""
    from stillhouse.device.runtimes import make_runtime

    def write(*, is_of_this_machine=False, **workload):
        here = profile.subject.fingerprint
        if is_of_this_machine:
            here = replace(here, device=make_runtime("cpu").name)
        here = replace(here, workload=replace(here.workload, **workload))
        changed = replace(profile, subject=replace(profile.subject, fingerprint=here))
        changed.write(tmp_path / "profile.json")
        return str(tmp_path / "profile.json")

    return write


@pytest.fixture
def clock(monkeypatch):
    """What `time.perf_counter` reads, in `now_s`; it stands still until it is set on."""

    class Clock:
        now_s = 100.0

    monkeypatch.setattr("time.perf_counter", lambda: Clock.now_s)
    return Clock
