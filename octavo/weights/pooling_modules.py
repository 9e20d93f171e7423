"""Modules of sentence-transformers: known by name and never executed; an unknown one is refused by name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from octavo.base.errors import ModelFileError
from octavo.base.files import confined, has_file, read_small
from octavo.config.pooling import PoolingFacts, PoolingType
from octavo.weights.config_json import MAX_CONTEXT
from octavo.weights.label_scores import by_tokens
from octavo.weights.module_folders import MAX_FILE_BYTES, read_modules, transformer_folder
from octavo.weights.strict_json import parse_object
from octavo.weights.token_scores import scores_by_id

MAX_DENSE_WIDTH = 2**17

_MODES = {
    "pooling_mode_cls_token": PoolingType.CLS,
    "pooling_mode_lasttoken": PoolingType.LAST,
    "pooling_mode_mean_tokens": PoolingType.MEAN,
}
_LIMITS = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
"""What sentence-transformers may have called the model in the name of its file of limits."""
_MODE_NAMES = {"cls": PoolingType.CLS, "lasttoken": PoolingType.LAST, "mean": PoolingType.MEAN}


def with_modules(facts: PoolingFacts, config: dict[str, Any], folder: Path) -> PoolingFacts:
    """What sentence-transformers' own files say, module by module in their order."""
    facts = replace(facts, normalizes=False)
    has_pooled = False
    modules = read_modules(folder)
    if [module.kind for module in modules] == ["Transformer", "LogitScore"]:
        return _with_logit_score(config, folder, modules[1].path)
    for module in modules:
        if module.kind == "Transformer":
            continue
        if module.kind == "Pooling" and not has_pooled:
            facts, has_pooled = _with_pooling(facts, _read(folder, module.path, "config.json")), True
        elif module.kind == "Dense" and has_pooled and not facts.normalizes:
            facts = _with_dense(facts, folder, module.path)
        elif module.kind == "Normalize" and has_pooled:
            facts = replace(facts, normalizes=True)
        else:
            raise ModelFileError(
                f"modules.json has the module {module.kind[:80]!r} at this place; known are Transformer, "
                "Pooling, Dense and Normalize, or Transformer and LogitScore, in this order."
            )
    if not has_pooled:
        raise ModelFileError("modules.json has no Pooling module.")
    return _with_prompts(_with_limits(facts, folder), folder)


def _with_logit_score(config: dict[str, Any], folder: Path, path: str) -> PoolingFacts:
    """A cross-encoder that is a decoder."""
    said = _read(folder, "config_sentence_transformers.json")
    # Where the config of a model with a head would have it.
    config = {**config, "sentence_transformers": said} if said.get("activation_fn") else config
    facts = by_tokens(config, scores_by_id(config, _read(folder, path, "config.json")), ("LABEL_0",))
    return _with_prompts(_with_limits(facts, folder), folder)


def _with_pooling(facts: PoolingFacts, said: dict[str, Any]) -> PoolingFacts:
    modes = [name for name, value in said.items() if name.startswith("pooling_mode_") and value]
    named = said.get("pooling_mode")
    chosen = [str(named)] if named is not None else modes
    known = {**_MODES, **_MODE_NAMES}
    if len(chosen) != 1 or chosen[0] not in known:
        raise ModelFileError(
            f"The model pools by {', '.join(chosen)[:80] or 'nothing'}; known: {', '.join(_MODE_NAMES)}."
        )
    if said.get("include_prompt") is False:
        raise ModelFileError(
            "The model's pooling leaves its prompt out (include_prompt), which is not supported."
        )
    return replace(facts, pooling=known[chosen[0]], why_pooling="as the model's Pooling module says")


@dataclass(frozen=True)
class DenseFacts:
    """A linear layer behind the pooling."""

    width_in: int
    width_out: int
    has_bias: bool
    activation: str
    """The last part of its name in torch."""


def read_dense(folder: Path, path: str) -> DenseFacts:
    """From the config.json of a Dense module."""
    said = _read(folder, path, "config.json")
    width_in, width_out = said.get("in_features"), said.get("out_features")
    for width in (width_in, width_out):
        if not isinstance(width, int) or not 1 <= width <= MAX_DENSE_WIDTH:
            raise ModelFileError(f"The Dense module in {path[:80]!r} has a width of {str(width)[:40]}.")
    assert isinstance(width_in, int) and isinstance(width_out, int), "checked"
    activation = str(said.get("activation_function") or "torch.nn.Tanh").rpartition(".")[2]
    return DenseFacts(width_in, width_out, said.get("bias") is not False, activation)


def _with_dense(facts: PoolingFacts, folder: Path, path: str) -> PoolingFacts:
    dense = read_dense(folder, path)
    if dense.width_in != facts.num_outputs:
        raise ModelFileError(
            f"The Dense module in {path[:80]!r} takes {dense.width_in} numbers; {facts.num_outputs} come in."
        )
    return replace(facts, num_outputs=dense.width_out, dense=(*facts.dense, path))


def _with_limits(facts: PoolingFacts, folder: Path) -> PoolingFacts:
    """Said beside the transformer."""
    folder = transformer_folder(folder)
    said = next((found for name in _LIMITS if (found := _read(folder, f"sentence_{name}_config.json"))), {})
    # Older versions write it there, newer ones leave it to the tokenizer, who may say that there is no end.
    most = said.get("max_seq_length")
    if most is None:
        stated = _read(folder, "tokenizer_config.json").get("model_max_length")
        most = stated if isinstance(stated, int) and 1 <= stated <= MAX_CONTEXT else None
    if most is not None and (not isinstance(most, int) or most < 1):
        raise ModelFileError(f"max_seq_length is {str(most)[:40]}; it must be at least 1.")
    return replace(facts, max_tokens=most, lowercases=bool(said.get("do_lower_case")))


def _with_prompts(facts: PoolingFacts, folder: Path) -> PoolingFacts:
    said = _read(folder, "config_sentence_transformers.json")
    prompts = said.get("prompts") or {}
    default = said.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise ModelFileError("The prompts of config_sentence_transformers.json are not all texts.")
    if default is not None and default not in prompts:
        raise ModelFileError(f"default_prompt_name {str(default)[:80]!r} is not among the prompts.")
    return replace(facts, prompts=prompts, default_prompt_name=default)


def _read(folder: Path, *names: str) -> dict[str, Any]:
    name = "/".join(names)
    if not has_file(folder, name):
        return {}
    return parse_object(read_small(confined(folder, *names), MAX_FILE_BYTES), name)
