"""LoRA on a transformers model, Hu et al. 2021, arXiv:2106.09685: add adapters, switch them off, merge them.

peft is an extra: it is imported where adapters are used.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import PreTrainedModel

_KEEPS_BASE = (True, False, "gaussian", "orthogonal")  # init_lora_weights under which the base stays as it is


def add_lora(model: PreTrainedModel, lora: int | Any) -> None:
    """Add adapters on every linear layer but the output.

    Args:
        model: only its adapters are trained from then on.
        lora: a rank, or a `peft.LoraConfig`, which stays as it is.

    Raises:
        TypeError: if it is neither.
        ValueError: if it names no layer of the model, changes its base, trains what is no adapter of a whole layer,
            or what cannot be merged into one.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ImportError(f"lora={lora!r} needs peft; install text-envs[lora]") from error
    config: Any = copy.deepcopy(lora)  # peft writes the layers that it finds into it
    if isinstance(lora, bool) or not isinstance(lora, int | LoraConfig) or (isinstance(lora, int) and lora < 1):
        raise TypeError(f"lora={lora!r}; give a rank of at least 1, a peft.LoraConfig, or None")
    if isinstance(lora, int):
        kind = "SEQ_CLS" if type(model).__name__.endswith("ForSequenceClassification") else None
        config = LoraConfig(r=lora, lora_alpha=2 * lora, target_modules="all-linear", task_type=kind)
    if config.bias != "none":
        raise ValueError(
            f"lora has bias={config.bias!r}, which trains biases of the base model itself, so that the policy "
            "without its adapters (reference='initial') would move too; give peft.LoraConfig(..., bias='none')"
        )
    if getattr(config, "trainable_token_indices", None):
        raise ValueError(
            f"lora has trainable_token_indices={config.trainable_token_indices!r}, which the output layer would "
            "not follow; train the embeddings whole: peft.LoraConfig(..., modules_to_save=[...])"
        )
    if config.init_lora_weights not in _KEEPS_BASE:
        raise ValueError(
            f"lora has init_lora_weights={config.init_lora_weights!r}, which changes the base model, so that the "
            "policy without its adapters (reference='initial') and a checkpoint, which only names its base, would "
            f"be wrong; give one of {_KEEPS_BASE}"
        )
    linear = sorted({name.rpartition(".")[2] for name, part in model.named_modules() if _is_linear(part)})
    try:
        model.add_adapter(config)
    except ValueError as error:
        raise ValueError(
            f"lora does not fit {type(model).__name__}, whose linear layers are {linear}: {error} "
            "Name some of them: lora=peft.LoraConfig(r=8, target_modules=[...])"
        ) from error
    _check_mergeable(model, config)


def _check_mergeable(model: PreTrainedModel, config: Any) -> None:
    """Refuse adapters that `merge_adapters` could not fold in, now and not after the training."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    whole = ""  # the last layer that is trained whole
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer) and config.lora_bias and module.get_base_layer().bias is None:
            raise ValueError(
                f"lora has lora_bias=True, but {name!r} has no bias into which it could be merged; give "
                "peft.LoraConfig(..., lora_bias=False)"
            )
        if isinstance(module, ModulesToSaveWrapper):
            if whole and name.startswith(f"{whole}."):
                ending = whole.rpartition(".")[2]
                raise ValueError(
                    f"lora trains {whole!r} whole and, within it, {name!r}: modules_to_save names endings; for the "
                    f"former alone give modules_to_save=['.{ending}']"
                )
            whole = name


def refuse_adapted_head(model: PreTrainedModel) -> None:
    """Refuse an adapter on the output layer, whose weight is read past it, or on embeddings that share it.

    Raises:
        ValueError: if there is one.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    head = model.get_output_embeddings()
    layers = [head, *([model.get_input_embeddings()] if is_tied(model) else [])]
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer) and any(module is layer for layer in layers):
            where = "the output layer" if module is head else "embeddings that are the output layer, too,"
            raise ValueError(
                f"lora names {where} {name!r}, on which an adapter would have no effect when the next token is "
                f"scored; leave it out of target_modules, or train it whole: peft.LoraConfig(..., "
                f"modules_to_save=[{name.rpartition('.')[2]!r}])"
            )


@contextmanager
def without_adapters(model: PreTrainedModel) -> Iterator[None]:
    """Switch adapters off, and trained copies of whole layers with them."""
    from peft.utils import ModulesToSaveWrapper

    model.disable_adapters()
    try:
        yield
    finally:
        model.enable_adapters()
        for module in model.modules():
            if isinstance(module, ModulesToSaveWrapper):  # transformers switches these off, but not on again
                module.enable_adapters(True)


def merge_adapters(model: PreTrainedModel) -> PreTrainedModel:
    """Fold every adapter into its layer, and put plain layers and trained copies in their places."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    model.float()
    for name, layer in reversed(list(model.named_modules())):  # what lies within a copy before the copy
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            plain = layer.get_base_layer()
        elif isinstance(layer, ModulesToSaveWrapper):
            plain = layer.modules_to_save[layer.active_adapters[0]]
        else:
            continue
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, plain)
    model._hf_peft_config_loaded = False
    if hasattr(model, "peft_config"):
        del model.peft_config
    return model


def is_tied(model: PreTrainedModel) -> bool:
    """Return whether embeddings and output layer are one weight."""
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"  # GPT-2's, transposed
