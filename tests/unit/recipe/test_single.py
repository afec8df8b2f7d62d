"""What a given student is refused for before its teacher is fine-tuned."""

import pytest
from transformers import MobileBertConfig, MobileBertForSequenceClassification

from stillhouse.errors import SettingsError
from stillhouse.recipe.single import check_given_student

LAYERED = {"hidden_weight": 1.0}


@pytest.fixture(scope="module")
def mobilebert_folder(tmp_path_factory):
    config = MobileBertConfig(
        vocab_size=40,
        num_hidden_layers=2,
        hidden_size=32,
        intermediate_size=32,
        embedding_size=16,
        num_attention_heads=2,
        intra_bottleneck_size=16,
        num_feedforward_networks=2,
    )
    folder = tmp_path_factory.mktemp("mobilebert")
    MobileBertForSequenceClassification(config).save_pretrained(folder)
    return str(folder)


def checked(bench, student, **distill):
    """The teacher has 4 layers of width 256."""
    check_given_student(bench({"distill": distill}), student)


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ("layers=5", "layers is 4, but the student's is 5: take a smaller student"),
        ("layers=1,hidden_size=512", "hidden_size is 256, but the student's is 512"),
    ],
)
def test_a_shape_beyond_the_teacher_is_no_extract(bench, student, message):
    with pytest.raises(SettingsError, match=message):
        checked(bench, student, initialisation="extract")
    checked(bench, student)
    checked(bench, "layers=4", initialisation="extract")


def test_a_checkpoint_has_weights_of_its_own(bench, weather_encoder_folder):
    checked(bench, str(weather_encoder_folder), initialisation="extract", **LAYERED)


def test_a_map_is_not_searched_for_a_checkpoint(bench, weather_encoder_folder):
    student = str(weather_encoder_folder)
    with pytest.raises(SettingsError, match=r"search judges maps by fresh students .*give a shape"):
        checked(bench, student, layer_map="search", **LAYERED)
    checked(bench, student, layer_map=(0, 1, 2, 4), **LAYERED)
    checked(bench, "layers=2", layer_map="search", **LAYERED)


@pytest.mark.parametrize("weight", ["hidden_weight", "attention_weight"])
def test_layers_of_mobilebert_learn_nothing(bench, mobilebert_folder, weight):
    with pytest.raises(SettingsError, match=r"is a MobileBERT, whose operations have no counterp"):
        checked(bench, mobilebert_folder, **{weight: 1.0})
    checked(bench, mobilebert_folder)


def test_genes_that_leave_nothing_are_refused(bench):
    nothing = {"logit_weight": 0.0, "layer_map": (0, 0), **LAYERED}
    with pytest.raises(SettingsError, match=r"layer map \[0, 0\] links no layer"):
        checked(bench, "layers=2", **nothing)
    checked(bench, "layers=2", embeddings=True, **nothing)


def test_a_student_that_cannot_have_few_bits_is_refused(bench, mobilebert_folder):
    asked = bench({"quantise": {"weight_bits": 4}})
    with pytest.raises(
        SettingsError, match=r"quantise.weight_bits is 4, but .* 'mobilebert' cannot be.* leave it"
    ):
        check_given_student(asked, mobilebert_folder)
    check_given_student(bench(), mobilebert_folder)
    check_given_student(asked, "layers=2,heads=2,head_size=16")
