"""Account: who computes a model here, or why nobody can. For `octavo explain` and `octavo plan`; no weights.

Models of transformers are run once without numbers to find out, which takes torch and some seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from octavo.base.errors import ModelFileError
from octavo.base.table import LazyTable
from octavo.config.model import ModelConfig
from octavo.models.pooled.table import ENCODERS, decoder_of, encoder_of, pools_theirs, refusal
from octavo.models.table import MODELS, ModelPath, choose_path


@dataclass(frozen=True, kw_only=True)
class Account:
    path: ModelPath | None
    """None: it does not run here."""
    reason: str
    sizes: dict[str, int] = field(default_factory=dict)
    """Entries of a config as it would have them if it were in the usual spelling; what was found out."""


def account_of(config: Mapping[str, Any], wishes: ModelConfig) -> Account:
    """`config` is a checkpoint's."""
    try:
        if wishes.runner == "pooling":
            return _of_pooled(config, wishes.model_impl)
        path = choose_path(config, wishes.model_impl)
        return _of_transformers(config) if path is ModelPath.TRANSFORMERS else _of_ours(config)
    except ModelFileError as error:
        return Account(path=None, reason=error.message)


def _of_ours(config: Mapping[str, Any]) -> Account:
    name = next(name for name in config["architectures"] if name in MODELS)
    return Account(path=ModelPath.OCTAVO, reason=f"Octavo's own {name} ({_file(MODELS, name)})")


def _of_pooled(config: Mapping[str, Any], wish: str) -> Account:
    names = config.get("architectures") or []
    for name in names if wish != ModelPath.TRANSFORMERS else ():
        if (encoder := encoder_of(name)) is not None:
            return Account(path=ModelPath.OCTAVO, reason=f"Octavo's own {name} ({_file(ENCODERS, encoder)})")
        if (decoder := decoder_of(name)) is not None:
            reason = f"Octavo's own {decoder} ({_file(MODELS, decoder)}), its hidden states pooled"
            return Account(path=ModelPath.OCTAVO, reason=reason)
    if wish != ModelPath.OCTAVO and pools_theirs(config):
        theirs = _of_transformers(config)
        return replace(theirs, reason=f"{theirs.reason}; its hidden states are pooled")
    return Account(path=None, reason=refusal(config))


def _file(table: LazyTable[Any], name: str) -> str:
    return table.module(name).replace(".", "/") + ".py"


def _of_transformers(config: Mapping[str, Any]) -> Account:
    import torch
    import transformers

    from octavo.models.fallback.model import observe

    skeleton, probed = observe(config, torch.float32)
    windows = sum(call.window is not None for call in probed.calls)
    seen = f"{len(probed.calls)} times a step" + (f", {windows} of them with a window" if windows else "")
    has_plan = bool(skeleton.config.get_text_config().base_model_tp_plan)
    first = probed.calls[0]
    return Account(
        path=ModelPath.TRANSFORMERS,
        reason=(
            f"{type(skeleton).__name__} of transformers {transformers.__version__} on Octavo's attention, "
            f"which it calls {seen}; it declares {'a' if has_plan else 'no'} plan for tensor parallelism"
        ),
        sizes={
            "hidden_size": probed.hidden_size,
            "num_hidden_layers": len(probed.calls),
            "num_attention_heads": first.num_heads,
            "num_key_value_heads": first.num_kv_heads,
            "head_dim": first.head_dim,
        },
    )
