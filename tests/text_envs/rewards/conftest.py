"""What tests of rewards share: a package that is not there, and tiny models with a tokenizer of words."""

import builtins

import pytest

WORDS = "the river hill sea by and is calm wild".split()


@pytest.fixture
def without(monkeypatch):
    """A function that makes packages impossible to import."""
    found = builtins.__import__

    def hide(*packages):
        def hidden(name, *arguments, **keywords):
            if name.split(".")[0] in packages:
                raise ModuleNotFoundError(f"No module named {name!r}")
            return found(name, *arguments, **keywords)

        monkeypatch.setattr(builtins, "__import__", hidden)

    return hide


@pytest.fixture(scope="session")
def tokenizer():
    tokenizers, transformers = pytest.importorskip("tokenizers"), pytest.importorskip("transformers")
    table = {word: i for i, word in enumerate(["<unk>", "<s>", *WORDS])}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(table, unk_token="<unk>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", bos_token="<s>")


@pytest.fixture(scope="session")
def tiny(tokenizer, tmp_path_factory):
    """A function that makes a tiny GPT-2 of a class of transformers, with dropout, in a folder."""
    import torch
    import transformers

    def make(kind, **config):
        torch.manual_seed(0)
        shape = {"n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": 16, "initializer_range": 0.5}
        ends = {"bos_token_id": 1, "eos_token_id": 1}
        model = getattr(transformers, kind)(
            transformers.GPT2Config(vocab_size=len(tokenizer), **shape, **ends, **config)
        )
        folder = tmp_path_factory.mktemp(kind)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make
