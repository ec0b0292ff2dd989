"""Fluency and Classifier, and the model behind them."""

import math
import pickle

import pytest

from text_envs.rewards import Classifier, Fluency

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

PROMPTS = ["the river", "the", "", "the wild sea is", "the hill"]
COMPLETIONS = ["is calm", "river by the wild sea is calm", "sea", "", "unheard of"]


@pytest.fixture(scope="module")
def folder(tiny):
    return tiny("GPT2LMHeadModel")


@pytest.fixture(scope="module")
def judge(tiny):
    return tiny("GPT2ForSequenceClassification", id2label={0: "bad", 1: "fair", 2: "good"}, pad_token_id=0)


def one_by_one(folder, prompt, completion):
    """The same as Fluency, a text and a token at a time."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(prompt)["input_ids"] or [tokenizer.bos_token_id]
    said = tokenizer(completion)["input_ids"]
    total = 0.0
    for token in said:
        with torch.no_grad():
            total += model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)[token].item()
        ids = [*ids, token]
    return total / len(said) if said else -math.log(model.config.vocab_size)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_fluency_is_the_mean_log_likelihood(folder, batch_size):
    values = Fluency(folder, batch_size=batch_size)(PROMPTS, COMPLETIONS)
    expected = [one_by_one(folder, *pair) for pair in zip(PROMPTS, COMPLETIONS, strict=True)]
    assert values == pytest.approx(expected, abs=1e-5)
    assert len({round(value, 4) for value in values}) == 5 and max(values) < 0
    assert values[3] == -math.log(11)


def test_the_separator_stands_between(folder):
    seamless = Fluency(folder)(["the ri"], ["ver"])
    assert Fluency(folder, separator=" by ")(["the"], ["sea"]) == Fluency(folder)(["the"], ["by sea"])
    assert Fluency(folder)(["the"], [""]) == Fluency(folder, separator=" by ")(["the"], [""])
    assert seamless == Fluency(folder)(["the <unk>"], ["<unk>"])  # each becomes tokens on its own


def test_a_model_in_memory_is_used_as_it_is(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).train()
    reward = Fluency((model, tokenizer))
    assert reward(PROMPTS, COMPLETIONS) == Fluency(folder)(PROMPTS, COMPLETIONS)  # without dropout
    assert reward.model.network is model and model.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(pickle.PicklingError, match="GPT2LMHeadModel that exists only in this process.*save_pretr"):
        pickle.dumps(reward)


def test_rewards_pickle_without_their_model(folder, judge):
    for reward in (Fluency(folder, batch_size=3), Classifier(judge, "good")):
        small = pickle.dumps(reward)
        assert len(small) < 600
        assert pickle.loads(small)(PROMPTS, COMPLETIONS) == pytest.approx(reward(PROMPTS, COMPLETIONS))


def test_the_classifier_says_what_the_model_says(judge):
    pipeline = transformers.pipeline("text-classification", str(judge), top_k=None)
    texts = ["the sea is calm", "wild", "the river and the hill by the sea"]
    expected = [{row["label"]: row["score"] for row in rows} for rows in pipeline(texts)]
    for label in ("bad", "fair", "good"):
        values = Classifier(judge, label, batch_size=2)(["ignored"] * 3, texts)
        assert values == pytest.approx([row[label] for row in expected], abs=1e-5)
    assert Classifier(judge, 2)([""] * 3, texts) == Classifier(judge, "good")([""] * 3, texts)
    logits = [Classifier(judge, i, output="logit")([""] * 3, texts) for i in range(3)]
    assert torch.tensor(logits).softmax(0)[2].tolist() == pytest.approx([row["good"] for row in expected], abs=1e-5)


def test_the_classifier_may_read_the_prompt(judge):
    both = Classifier(judge, "good", read="both", separator=" ")
    assert both(["the sea"], ["is calm"]) == Classifier(judge, "good")([""], ["the sea is calm"])


def test_an_empty_text_is_classified_as_the_token_that_begins_one(judge):
    assert Classifier(judge, "good")([""], [""]) == Classifier(judge, "good")([""], ["<s>"])


def test_one_output_or_labels_apart_are_a_sigmoid(tiny):
    single = tiny("GPT2ForSequenceClassification", num_labels=1)  # without a pad token: the reward chooses one
    value, logit = (Classifier(single, output=output)([""] * 2, ["sea", "the sea"]) for output in OUTPUTS)
    assert value == pytest.approx(torch.tensor(logit).sigmoid().tolist())
    several = tiny(
        "GPT2ForSequenceClassification", num_labels=3, problem_type="multi_label_classification", pad_token_id=0
    )
    value, logit = (Classifier(several, 1, output=output)([""], ["the sea"]) for output in OUTPUTS)
    assert value == pytest.approx(torch.tensor(logit).sigmoid().tolist())


OUTPUTS = ("probability", "logit")


def test_what_does_not_fit_is_refused(folder, judge):
    with pytest.raises(ValueError, match="a text has 17 tokens, and GPT2LMHeadModel reads 16; shorten"):
        Fluency(folder)(["the sea " * 8], ["calm"])
    with pytest.raises(ValueError, match="a text has 17 tokens, and GPT2ForSequenceClassification reads 16"):
        Classifier(judge, "bad")([""], ["sea " * 17])


def test_a_text_without_tokens_needs_one_that_begins_it(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, bos_token=None)
    tokenizer.bos_token = None
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with pytest.raises(ValueError, match="a text has no tokens.*set its bos_token"):
        Fluency((model, tokenizer))([""], ["sea"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "great"}, r"label is one of \['bad', 'fair', 'good'\] or its index, got 'great'"),
        ({"label": 3}, "got 3"),
        ({"label": None}, "got None"),
        ({"label": 0, "output": "score"}, "output is .*got 'score'"),
        ({"label": 0, "read": "prompt"}, "read is .*got 'prompt'"),
        ({"label": 0, "batch_size": 0}, "batch_size is at least 1, got 0"),
    ],
)
def test_wrong_settings_are_refused(judge, options, message):
    with pytest.raises(ValueError, match=message):
        Classifier(judge, **options)


def test_wrong_models_are_refused(tmp_path, without):
    with pytest.raises(ValueError, match=r"the pair \(model, tokenizer\), got a tuple of 1"):
        Fluency((1,))
    with pytest.raises(ValueError, match="a pair keeps its device and dtype, got device='cpu', dtype=None"):
        Fluency((1, 2), device="cpu")
    with pytest.raises(OSError, match="no-model"):
        Fluency(tmp_path / "no-model")
    without("transformers")
    with pytest.raises(ImportError, match=r"transformers: pip install 'text-envs\[agents\]'"):
        Fluency(tmp_path)
