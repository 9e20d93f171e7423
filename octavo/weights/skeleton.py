"""The skeleton of a model of transformers: its modules without numbers, its tensors by their stored names.

Built from the config alone, on the device "meta". The class is always one of the installed transformers:
nothing that a checkpoint brings (`auto_map`, names of kernels to fetch) has a say. Imports torch and
transformers when called.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from octavo.base.errors import ModelFileError

if TYPE_CHECKING:
    import torch

IGNORED = ("auto_map", "attn_implementation", "experts_implementation", "quantization_config", "torch_dtype")
"""Entries of a config that say where code or kernels come from, or in which numbers weights are stored."""


def has_skeleton(config: Mapping[str, Any]) -> bool:
    """Whether the installed transformers has a class for causal language modelling of this architecture."""
    return class_name(config) is not None


def class_name(config: Mapping[str, Any]) -> str | None:
    """The first of the config's architectures that is such a class."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    known = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    return next((str(name) for name in config.get("architectures") or [] if name in known), None)


def build_skeleton(
    config: Mapping[str, Any], *, dtype: str, attention: str = "eager", experts: str = "eager"
) -> Any:
    """A PreTrainedModel on the device "meta".

    `config` is in Hugging Face's shape, `dtype` a name of torch; `attention` and `experts` are names in
    transformers' interfaces for them. Raises ModelFileError for values that cannot be.
    """
    import torch
    import transformers

    name = class_name(config)
    if name is None:
        raise ModelFileError(
            f"transformers {transformers.__version__} has no causal language model called "
            f"{', '.join(map(str, config.get('architectures') or [])) or '(none stated)'}."
        )
    model_class, config_class = getattr(transformers, name), _config_class(name, config)
    values = {key: value for key, value in config.items() if key.strip("_") not in IGNORED}
    values |= {"output_router_logits": False} if "output_router_logits" in values else {}
    try:
        with torch.device("meta"):
            skeleton = model_class._from_config(
                config_class.from_dict(values),
                dtype=getattr(torch, dtype),
                attn_implementation=attention,
                experts_implementation=experts,
            ).eval()
    except Exception as error:  # whatever a model's code makes of a config that does not fit
        raise ModelFileError(
            f"{name} of transformers {transformers.__version__} cannot be built from the model's config: "
            f"{str(error)[:500]}"
        ) from error
    for pattern, wider in skeleton._get_dtype_plan(getattr(torch, dtype)).items():
        # Routers and the like, which narrow types would lead astray.
        for tensor_name, tensor in skeleton.state_dict(keep_vars=True).items():
            if re.search(pattern.replace("*", ".*"), tensor_name):
                tensor.data = tensor.data.to(wider)
    return skeleton


def _config_class(name: str, config: Mapping[str, Any]) -> Any:
    """What reads the config of a model class: one class may have several, told apart by model_type."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    own = getattr(transformers, name).config_class
    model_type = str(config.get("model_type") or own.model_type)
    if MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type) == name:
        return transformers.CONFIG_MAPPING[model_type]
    if model_type != own.model_type:
        raise ModelFileError(
            f"The model's config has the model_type {model_type[:80]!r}, which is not that of its "
            f"architecture {name}: {own.model_type!r}."
        )
    return own


def stored_tensors(skeleton: Any, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What a checkpoint holds of a model: `tensors`, named as its modules are, by the names in checkpoints.

    transformers may keep weights in another arrangement than checkpoints do (all experts in one tensor) and
    knows how to write them back. Done on tensors whose memory is there but empty, that gives a place for
    everything that is stored: the results are views of what is given.
    """
    import torch
    from torch.overrides import TorchFunctionMode
    from transformers.core_model_loading import revert_weight_conversion

    class WithoutCopies(TorchFunctionMode):
        """Parts of a tensor stay views, however the memory of the whole is ordered."""

        def __torch_function__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            return args[0] if func is torch.Tensor.contiguous else func(*args, **(kwargs or {}))

    kept = {name: tensor for name, tensor in tensors.items() if name not in skeleton.all_tied_weights_keys}
    with WithoutCopies(), torch.no_grad():
        stored: dict[str, torch.Tensor] = revert_weight_conversion(skeleton, kept)
    memory = {tensor.untyped_storage()._cdata for tensor in tensors.values()}
    copies = [name for name, tensor in stored.items() if tensor.untyped_storage()._cdata not in memory]
    if copies:
        raise ModelFileError(
            f"{type(skeleton).__name__} keeps {len(copies)} tensors of its checkpoint in an order of its own "
            f"that cannot be filled in place, {copies[0]} among them."
        )
    return stored
