"""Which language model a policy is built from, and loading it: config, folder, Hub id, GGUF file or module."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedConfig, PreTrainedModel

ModelSource = str | Path | PreTrainedConfig | PreTrainedModel


@dataclass(frozen=True)
class ModelSpec:
    """What a policy is built from.

    Attributes:
        model: a config (random weights), a folder, a Hub id, a GGUF file, a module, or None for `tiny_config`.
        lora: None (train every weight), a rank, or a `peft.LoraConfig`.
        dtype: None (float32 throughout) or "bfloat16" / "float16": activations under autocast, frozen weights
            stored so, trained weights and optimiser state in float32.
        dropout: whether dropout is active in updates. Off by default: sampled and trained policy must agree.
        trust_remote_code: handed to transformers as it is.
        gradient_checkpointing: compute each layer again in the backward pass instead of keeping its activations:
            about a third more time, memory of one layer.
        compile: run whole contexts (not the cached single tokens) through `torch.compile` with dynamic shapes.
        frozen: no weight is trained.

    A checkpoint of a policy whose base is never trained (`lora` or `frozen`) and was given as a folder, a Hub id or
    a GGUF file names it and its hash and holds the rest; any other model is held whole.
    """

    model: ModelSource | None = None
    lora: int | Any | None = None
    dtype: str | torch.dtype | None = None
    dropout: bool = False
    trust_remote_code: bool = False
    gradient_checkpointing: bool = False
    compile: bool = False
    frozen: bool = False


def tiny_config(vocab_size: int, context_length: int) -> GPT2Config:
    """Return the default model: GPT-2 with 2 layers, width 64 and 4 heads, without dropout.

    Weights are drawn wider than GPT-2's 0.02, which at this width keeps it from learning to look things up.
    """
    return GPT2Config(
        vocab_size=vocab_size,
        n_positions=context_length,
        n_embd=64,
        n_layer=2,
        n_head=4,
        initializer_range=0.1,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
    )


def load_model(source: ModelSource, trust_remote_code: bool = False) -> PreTrainedModel:
    """Return a float32 causal language model from any of the sources that `ModelSpec.model` names.

    Raises:
        FileNotFoundError: if a path that looks local does not exist.
        TypeError: if the source is of another kind.
        ValueError: if transformers has no causal language model of that kind (T5, say).
    """
    try:
        model = _load_model(source, trust_remote_code)
    except ValueError as error:
        if "Unrecognized configuration class" not in str(error):
            raise
        kind = source.model_type if isinstance(source, PreTrainedConfig) else source
        raise ValueError(
            f"model={str(kind)!r} is no causal language model (an encoder, or an encoder and a decoder); use one "
            "that continues a text from left to right, such as GPT-2 or Llama"
        ) from error
    if hasattr(model.config, "rescale_every"):  # RWKV halves weights in place where it is not in training mode
        model.config.rescale_every = 0
    return model


def _load_model(source: ModelSource, trust_remote_code: bool) -> PreTrainedModel:
    if isinstance(source, PreTrainedModel):
        return copy.deepcopy(source).float()  # a caller's module is not trained behind its back
    if isinstance(source, PreTrainedConfig):
        config = copy.deepcopy(source)  # nor is a caller's config changed
        return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code).float()
    if not isinstance(source, str | Path):
        raise TypeError(
            f"model={source!r} is a {type(source).__name__}; pass a transformers config, a folder, a Hub id, "
            "a .gguf file or a PreTrainedModel"
        )
    where = locate(source)
    if where.endswith(".gguf"):
        return _load_gguf(Path(where))
    return AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, trust_remote_code=trust_remote_code)


def locate(source: str | Path) -> str:
    """Return the path of a folder or file, or else a Hub id, which has at most one slash.

    Raises:
        FileNotFoundError: if a path that looks local does not exist.
    """
    path, text = Path(source).expanduser(), str(source)
    if path.exists():
        return str(path)
    is_local = isinstance(source, Path) or path.suffix == ".gguf" or text.startswith((".", "/", "~"))
    if is_local or text.count("/") > 1:
        raise FileNotFoundError(f"model={text!r} does not exist; give a folder, a .gguf file or a Hub id")
    return text


def _load_gguf(path: Path) -> PreTrainedModel:
    """Return a GGUF file's model as an ordinary one (as loaded it is marked quantised, which trainers refuse)."""
    loaded = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype=torch.float32)
    config = copy.deepcopy(loaded.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config).float()
    model.load_state_dict(loaded.state_dict())
    return model


def address(source: str | Path) -> str:
    """Return a path from the root, or a Hub id as it is."""
    path = Path(source).expanduser()
    return str(path.resolve()) if path.exists() else str(source)


def as_dtype(name: str | torch.dtype) -> torch.dtype:
    """Return the reduced precision of that name.

    Raises:
        ValueError: if it is not one of the two.
    """
    known = {"bfloat16": torch.bfloat16, "float16": torch.float16}
    if isinstance(name, torch.dtype) and name in known.values():
        return name
    if name not in known:
        raise ValueError(f"dtype={name!r}; choose from {sorted(known)} or None for float32")
    return known[name]
