import pytest

from stillhouse.errors import SettingsError
from stillhouse.run.settings import settings_from_dict


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("steps", 0, "cross_view.steps must be above 0, got 0"),
        ("batch_size", 0, "cross_view.batch_size must be above 0"),
        ("unlabelled_batch_size", -1, "unlabelled_batch_size must be above 0, got -1"),
        ("learning_rate", 0.0, "learning_rate must be above 0"),
        ("clip_norm", 0.0, "clip_norm must be above 0"),
        ("most_words", 0, "most_words must be above 0"),
        ("evaluate_every", 0, "evaluate_every must be above 0"),
        ("patience", 0, "patience must be above 0 or absent"),
        ("word_size", 0, "word_size must be above 0 or absent"),
        ("labels_fraction", 0.0, "labels_fraction must be above 0 and at most 1, got 0.0"),
        ("labels_fraction", 1.5, "labels_fraction must be above 0 and at most 1"),
        ("unlabelled_weight", -0.1, "unlabelled_weight must be at least 0"),
        ("decay", -1.0, "decay must be at least 0"),
        ("label_smoothing", 1.0, "label_smoothing must be at least 0 and below 1"),
        ("dropout", 1.0, "cross_view.dropout must be at least 0 and below 1"),
        ("unlabelled_dropout", -0.1, "unlabelled_dropout must be at least 0 and below 1"),
        ("momentum", 1.0, "momentum must be at least 0 and below 1"),
        ("average", 1.0, "average must be at least 0 and below 1"),
        ("warmup_steps", -1, "warmup_steps must be at least 0 or absent"),
        ("size", "huge", "cross_view.size: Input should be 'small' or 'published'.*'huge'"),
        ("targets", "mine", "cross_view.targets: Input should be 'own' or 'teacher'"),
        ("epochs", 2, "cross_view.epochs: unknown key; known keys here: size, word_size"),
    ],
)
def test_a_training_that_cannot_be_is_refused(name, value, rule):
    with pytest.raises(SettingsError, match=rule):
        settings_from_dict({"cross_view": {name: value}})
