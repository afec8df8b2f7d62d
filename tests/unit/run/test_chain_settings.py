import pytest

from stillhouse.errors import SettingsError
from stillhouse.run.chain_settings import (
    BlocksSettings,
    MlmSettings,
    PretrainSettings,
    SelectSettings,
)
from stillhouse.run.settings import settings_from_dict
from stillhouse.run.settings_file import apply_overrides


def test_the_defaults_are_the_published_figures():
    """Section 3 of the paper and its appendix: shrinking, selection and the loss."""
    blocks = BlocksSettings()
    assert (blocks.operations, blocks.bins, blocks.sampled, blocks.kept) == (6, 10, 2_000, 10)
    assert (blocks.warm_epochs, blocks.dev_batches) == (3, 5)
    assert blocks.bins_by == "size_and_latency"
    assert (MlmSettings().probability, SelectSettings().candidates) == (0.15, 100)
    pretrain = PretrainSettings()
    assert (pretrain.teacher_weight, pretrain.start) == (0.5, "scratch")
    for section in (blocks, pretrain):
        assert (section.learning_rate, section.warmup_fraction) == (5e-4, 10_000 / 125_000)
        assert (section.weight_decay, section.dropout) == (0.01, 0.1)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("blocks.count", 0, "blocks.count must be 1 to 4: .*got 0"),
        ("blocks.count", 5, "blocks.count must be 1 to 4: .*got 5"),
        ("blocks.count", "two", "blocks.count: .*integer.*'two'"),
        ("blocks.operations", 0, "blocks.operations must be above 0, got 0"),
        ("blocks.hidden_sizes", 64, "blocks.hidden_sizes: .*list.*64"),
        ("blocks.steps_per_epoch", 0, "blocks.steps_per_epoch must be above 0, got 0"),
        ("blocks.warm_epochs", -1, "blocks.warm_epochs must not be negative, got -1"),
        ("blocks.bins", 0, "blocks.bins must be above 0, got 0"),
        ("blocks.bins_by", "latency", "'size_and_latency' or 'size'.*'latency'"),
        ("blocks.sampled", 1, "blocks.sampled must be above 1: the worse half .*got 1"),
        ("blocks.kept", 0, "blocks.kept must be above 0, got 0"),
        ("blocks.dev_batches", 0, "blocks.dev_batches must be above 0, got 0"),
        ("blocks.batch_size", 0, "blocks.batch_size must be above 0, got 0"),
        ("blocks.learning_rate", float("nan"), r"blocks.learning_rate: .* finite number"),
        ("blocks.warmup_fraction", 1.1, "blocks.warmup_fraction must be in 0..1, got 1.1"),
        ("blocks.weight_decay", -0.1, "blocks.weight_decay must be in 0..1, got -0.1"),
        ("blocks.dropout", 1.0, "blocks.dropout must be at least 0 and below 1, got 1.0"),
        ("mlm.probability", 0, "mlm.probability must be above 0 and below 1, got 0"),
        ("mlm.probability", 1, "mlm.probability must be above 0 and below 1, got 1"),
        ("mlm.whole_word", "maybe", "mlm.whole_word: .*boolean.*'maybe'"),
        ("mlm.head_steps", 0, "mlm.head_steps must be above 0, got 0"),
        ("mlm.head_learning_rate", 0, "mlm.head_learning_rate must be above 0, got 0"),
        ("select.candidates", 0, "select.candidates must be above 0, got 0"),
        ("select.runners_up", -1, "select.runners_up must not be negative, got -1"),
        ("pretrain.steps", 0, "pretrain.steps must be above 0, got 0"),
        ("pretrain.steps", 2.5, "pretrain.steps: .*2.5"),
        ("pretrain.batch_size", 0, "pretrain.batch_size must be above 0, got 0"),
        ("pretrain.learning_rate", -1, "pretrain.learning_rate must be above 0, got -1"),
        ("pretrain.warmup_fraction", -0.1, "pretrain.warmup_fraction must be in 0..1, got -0.1"),
        ("pretrain.weight_decay", 1.5, "pretrain.weight_decay must be in 0..1, got 1.5"),
        ("pretrain.dropout", -0.1, "pretrain.dropout must be at least 0 and below 1, got -0.1"),
        ("pretrain.teacher_weight", 1.5, "pretrain.teacher_weight must be in 0..1, got 1.5"),
        ("pretrain.start", "teacher", "'scratch' or 'supernet'.*'teacher'"),
    ],
)
def test_impossible_values_are_refused(path, value, message):
    with pytest.raises(SettingsError, match=message):
        settings_from_dict(apply_overrides({"recipe": "nas-bert"}, {path: value}))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("blocks.count", 1),
        ("blocks.count", 4),
        ("blocks.count", None),
        ("blocks.operations", 1),
        ("blocks.hidden_sizes", [64]),
        ("blocks.warm_epochs", 0),
        ("blocks.sampled", 2),
        ("blocks.kept", 1),
        ("blocks.dropout", 0),
        ("select.runners_up", 0),
        ("pretrain.teacher_weight", 0),
        ("pretrain.teacher_weight", 1),
    ],
)
def test_the_outermost_values_are_taken(path, value):
    settings = settings_from_dict(apply_overrides({"recipe": "nas-bert"}, {path: value}))
    section, name = path.split(".")
    found = getattr(getattr(settings, section), name)
    assert found == (tuple(value) if isinstance(value, list) else value)
