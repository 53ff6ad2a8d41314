from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from loopback_hub import card_problems

from sgm_hf.hub import OBJECTIVES, CardFacts, make_model_card
from sgm_hf.modeling.label_sets_sgm import SET_DECODINGS
from sgm_hf.training.arguments import OBJECTIVES as OBJECTIVES_OF_TRAINING

EXPECTED = Path(__file__).with_name("model_card.md")
EXPECTED_OF_TWO_SOURCES = Path(__file__).with_name("model_card_two_sources.md")


@pytest.fixture
def facts() -> CardFacts:
    metrics = {"micro_f1": 0.75, "micro_precision": 2 / 3, "hamming_loss": 0.0123456, "runtime": 3.0}
    decodings = {f"{kind}_{name}": value for kind in SET_DECODINGS for name, value in metrics.items()}
    return CardFacts(
        name="topics",
        repository="me/topics",
        labels=["economy", "a|b", "`c`", "<script>alert(1)</script>"],
        data={"training documents": "7,000", "labels per document": "1.24"},
        settings={
            "Model": {"vocab_size": 30000, "attention": "word", "label_feedback": None},
            "Generation": {"num_beams": 5, "set_decoding": "best_sequence"},
            "Training": {"learning_rate": 0.0003},
        },
        versions={"sgm_hf": "0.1.0", "transformers": "5.23.0"},
        results={"test": {**metrics, **decodings, "ece": 0.0123456, "nll": 2.5}},
        max_words=500,
        trainer="SGMTrainer",
        dataset_names=["Reuters-21578"],
        dataset_ids=["me/reuters21578"],
        dataset_configs=["ModApte"],
        language=["en"],
        license="apache-2.0",
        tags=["news"],
        base_model="me/older",
    )


def test_the_whole_card_is_as_expected(facts):
    assert str(make_model_card(facts)) == EXPECTED.read_text(encoding="utf-8")


@pytest.fixture
def facts_of_two_sources(facts) -> CardFacts:
    """Those of a model with a lexical branch, calibrated for macro-F1."""
    branch = {"lexical_branch": True, "lexical_bigrams": 20000, "lexical_in_decoder": True, "encoder_max_length": 200}
    facts.settings["Model"].update(branch)
    facts.settings["Generation"] = {
        "objective": "macro_f1",
        "lexical_weight": 1.5,
        "hypothesis_temperature": 2.0,
        "label_calibration": [0.875, -0.125],
        "num_beams": 5,
        "set_decoding": "threshold",
        "label_threshold": [0.25, 0.5, 0.125, 0.75, 0.375, 0.3],
    }
    return facts


def test_the_whole_card_of_a_model_with_two_sources_is_as_expected(facts_of_two_sources):
    card = make_model_card(facts_of_two_sources)
    assert str(card) == EXPECTED_OF_TWO_SOURCES.read_text(encoding="utf-8")
    assert card_problems(str(card)) == []


def test_the_card_says_what_the_settings_say(facts_of_two_sources):
    model, generation = (facts_of_two_sources.settings[title] for title in ("Model", "Generation"))
    model.update(lexical_bigrams=0, lexical_in_decoder=False, encoder_max_length=None)
    generation.update(label_calibration=[], label_threshold=0.3125, objective="micro_f1")
    card = " ".join(make_model_card(facts_of_two_sources).text.split())
    assert "a linear model over the words of the whole text" in card and "They have a say" in card
    assert "A label is taken from a score of 0.31 on." in card and "(objective `micro_f1`)" in card
    assert "It is not calibrated." in card and "The generator reads the first" not in card


def test_the_card_says_whose_words_are_stored(facts_of_two_sources):
    assert "stored training documents" not in make_model_card(facts_of_two_sources).text
    facts_of_two_sources.settings["Model"].update(lexical_neighbors=30, lexical_datastore=[1200, 9000, 2500])
    card = " ".join(make_model_card(facts_of_two_sources).text.split())
    assert "The 30 most similar of 1,200 stored training documents vote for their labels" in card


def test_the_card_of_a_model_of_images_speaks_of_images(facts_of_two_sources):
    facts = facts_of_two_sources
    facts.images, facts.max_words = True, None
    facts.settings["Model"] = {"encoder": "pretrained", "encoder_config": "vit, 12 layers of size 768"}
    card = make_model_card(facts)
    assert card_problems(str(card)) == []
    assert "text" not in card.text.replace("context", "") and "words" not in card.text
    assert 'classifier("image.jpg")' in card.text and "AutoImageProcessor" in card.text
    data = ModelCard(str(card)).data
    assert data.pipeline_tag == "image-classification"
    assert {result.task_type for result in data.eval_results} == {"image-classification"}


def test_the_card_has_words_for_every_objective():
    assert list(OBJECTIVES) == list(OBJECTIVES_OF_TRAINING)


def test_the_metadata_is_read_back_as_it_was_given(facts):
    data = ModelCard(str(make_model_card(facts))).data
    assert (data.language, data.license, data.base_model) == (["en"], "apache-2.0", "me/older")
    assert (data.library_name, data.pipeline_tag, data.datasets) == (
        "transformers",
        "text-classification",
        ["me/reuters21578"],
    )
    (f1, *_) = data.eval_results
    assert (f1.dataset_name, f1.dataset_type, f1.dataset_config, f1.dataset_split) == (
        *("Reuters-21578", "me/reuters21578", "ModApte", "test"),
    )
    assert {result.metric_name: result.metric_value for result in data.eval_results} == {
        **{"Micro F1": 0.75, "Micro precision": 0.6667, "Hamming loss": 0.0123},
        **{"Expected calibration error": 0.0123, "Negative log-likelihood, nats per text": 2.5},
    }


def test_a_result_that_is_not_a_number_stays_out_of_the_metadata(facts):
    facts.results = {"test": {"micro_f1": 0.5, "ece": float("nan")}}
    card = make_model_card(facts)
    assert card_problems(str(card)) == []
    assert [result.metric_name for result in ModelCard(str(card)).data.eval_results] == ["Micro F1"]


@pytest.mark.parametrize("name", ["Ünï: 'quoted' \"twice\" #1", "yes", "1.0", "- item", "日本語", "a\\b: {c}"])
def test_names_that_are_special_in_yaml_give_a_valid_card(facts, name):
    facts.name, facts.dataset_names, facts.dataset_ids, facts.tags = name, [name], [], [name]
    card = make_model_card(facts)
    assert card_problems(str(card)) == []
    data = ModelCard(str(card)).data
    assert (data.model_name, data.eval_results[0].dataset_name, data.tags[-1]) == (name, name, name)


@pytest.mark.parametrize("name", ["{{ 7 * 7 }}", "{% if %}", "{# hidden #}", "{{ facts.license }}"])
def test_what_looks_like_a_template_in_a_name_is_text(facts, name):
    facts.name, facts.repository, facts.dataset_names, facts.labels = name, name, [name], [name]
    facts.data, facts.trainer = {name: name}, name
    card = make_model_card(facts)
    assert ModelCard(str(card)).data.model_name == name
    assert card.text.count(name) == 9
    assert f"| {name} | {name} |" in card.text


def test_a_model_that_was_neither_trained_nor_evaluated_here_says_so(facts):
    facts.data, facts.results, facts.trainer, facts.dataset_names, facts.dataset_ids = {}, {}, None, [], []
    card = make_model_card(facts)
    assert card_problems(str(card)) == []
    assert "model-index" not in card.content and "It was trained" not in card.text
    assert "## Training data\n\nNot recorded." in card.text and "## Results\n\nNot evaluated." in card.text
