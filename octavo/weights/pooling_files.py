"""What a checkpoint says about pooling: in its config, and in the files of sentence-transformers beside it.

Modules of sentence-transformers are known by name and never executed; an unknown one is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octavo.base.errors import ConfigError, ModelFileError
from octavo.config.pooling import Activation, PoolingFacts, PoolingType, TokenScores
from octavo.weights.config_json import MAX_CONTEXT, text_config
from octavo.weights.encoder_shapes import CLASSIFIES
from octavo.weights.files import confined, has_file, read_small
from octavo.weights.strict_json import parse_object, parse_objects
from octavo.weights.token_scores import names_tokens, scores_by_id, scores_by_name

if TYPE_CHECKING:
    from octavo.config.model import ModelConfig
    from octavo.weights.checkpoint import Checkpoint

MAX_FILE_BYTES = 4 * 2**20
MAX_LABELS = 2**16
MAX_DENSE_WIDTH = 2**17
ENCODERS = frozenset({"bert", "camembert", "distilbert", "modernbert", "roberta", "xlm-roberta"})
"""model_type of those whose tokens see all others."""

_MODES = {
    "pooling_mode_cls_token": PoolingType.CLS,
    "pooling_mode_lasttoken": PoolingType.LAST,
    "pooling_mode_mean_tokens": PoolingType.MEAN,
}
_MODE_NAMES = {"cls": PoolingType.CLS, "lasttoken": PoolingType.LAST, "mean": PoolingType.MEAN}
_ACTIVATIONS = {"Identity": Activation.NONE, "Sigmoid": Activation.SIGMOID, "Softmax": Activation.SOFTMAX}


def made_for_pooling(checkpoint: Checkpoint) -> bool:
    """Whether the model was made to be pooled, not to write."""
    return not can_write(checkpoint) or has_modules(_folder(checkpoint)) or names_tokens(checkpoint.config)


def can_write(checkpoint: Checkpoint) -> bool:
    """Whether it has what predicting tokens needs, whatever it was made for."""
    return not is_bare(checkpoint.config) and not architecture_of(checkpoint.config).endswith(CLASSIFIES)


def pooling_of(checkpoint: Checkpoint, model: ModelConfig) -> PoolingFacts:
    """How to pool this model, the user's wish included. Raises ModelFileError or ConfigError."""
    if names_tokens(checkpoint.config):
        facts = _by_tokens(
            checkpoint.config, *scores_by_name(checkpoint.config, checkpoint.tokenizer_source())
        )
    else:
        facts = read_pooling(checkpoint.config, _folder(checkpoint))
    if model.pooling_type is None:
        return facts
    if facts.task != "embed":
        raise ConfigError(
            "pooling_type is for models that embed; the head of this one says what it pools.",
            param="pooling_type",
        )
    if not facts.is_encoder and model.pooling_type == PoolingType.CLS:
        raise ConfigError(
            "pooling_type is cls, but a decoder's first token sees nothing of the text. Use last or mean.",
            param="pooling_type",
        )
    return replace(facts, pooling=PoolingType(model.pooling_type), why_pooling="as asked for")


def read_pooling(config: dict[str, Any], folder: Path | None = None) -> PoolingFacts:
    """From a Hugging Face config and, if there is a folder, from the files in it."""
    if architecture_of(config).endswith(CLASSIFIES):
        return _classifying(config)
    facts = _usual(config)
    return _with_modules(facts, config, folder) if folder is not None and has_modules(folder) else facts


def has_modules(folder: Path | None) -> bool:
    """Whether sentence-transformers wrote this folder, for a model that embeds."""
    return folder is not None and has_file(folder, "modules.json")


def _folder(checkpoint: Checkpoint) -> Path | None:
    return checkpoint.path if checkpoint.path.is_dir() else None


def architecture_of(config: Mapping[str, Any]) -> str:
    """The first that the config names; empty where it names none."""
    names = config.get("architectures") or []
    return str(names[0]) if isinstance(names, list) and names else ""


def is_bare(config: Mapping[str, Any]) -> bool:
    """Whether the architecture is a backbone without any head."""
    name = architecture_of(config)
    return name.endswith("Model") and not name.endswith("LMHeadModel")


def num_labels(config: Mapping[str, Any]) -> int:
    return len(_labels(config))


def _usual(config: dict[str, Any]) -> PoolingFacts:
    """Where no file says how: an encoder's first token was made for this, and a decoder's last knows most."""
    is_encoder = config.get("model_type") in ENCODERS
    why = "usual for encoders" if is_encoder else "the only token of a decoder that has seen all others"
    return PoolingFacts(
        task="embed",
        pooling=PoolingType.CLS if is_encoder else PoolingType.LAST,
        why_pooling=f"{why}; no file of the model says how",
        num_outputs=_width(config),
        is_encoder=is_encoder,
        normalizes=True,
    )


def _width(config: dict[str, Any]) -> int:
    text = text_config(config)
    width = text.get("hidden_size") or text.get("dim")
    if not isinstance(width, int):
        raise ModelFileError("The model's config has no hidden_size.")
    return width


def _classifying(config: dict[str, Any]) -> PoolingFacts:
    labels = _labels(config)
    is_encoder = config.get("model_type") in ENCODERS
    return PoolingFacts(
        task="classify",
        pooling=_head_pooling(config, is_encoder),
        why_pooling="what the model's head was trained on",
        num_outputs=len(labels),
        is_encoder=is_encoder,
        activation=_label_activation(config, len(labels)),
        labels=labels,
    )


def _by_tokens(config: dict[str, Any], scores: TokenScores, labels: tuple[str, ...]) -> PoolingFacts:
    """Of a model that predicts the next token, and is asked which one it is."""
    if config.get("model_type") in ENCODERS:
        raise ModelFileError(
            "Scores by tokens are for models that predict the next one; an encoder does not."
        )
    return PoolingFacts(
        task="classify",
        pooling=PoolingType.LAST,
        why_pooling="where the next token is predicted",
        num_outputs=scores.num_scores,
        is_encoder=False,
        activation=_label_activation(config, scores.num_scores),
        labels=labels,
        from_tokens=scores,
    )


def _head_pooling(config: dict[str, Any], is_encoder: bool) -> PoolingType:
    named = config.get("classifier_pooling")
    if named is None:
        return PoolingType.CLS if is_encoder else PoolingType.LAST
    if named not in ("cls", "mean"):
        raise ModelFileError(
            f"The model's classifier_pooling is {str(named)[:40]!r}; cls and mean are known."
        )
    return PoolingType(named)


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """In the order of their numbers; two without names where the config says nothing, as in transformers."""
    named = config.get("id2label")
    if isinstance(named, dict) and named:
        count = len(named)
    else:
        named, count = {}, config.get("num_labels") or 2
    if not isinstance(count, int) or not 1 <= count <= MAX_LABELS:
        raise ModelFileError(f"The model's num_labels is {str(count)[:40]}; 1 to {MAX_LABELS} is possible.")
    return tuple(str(named.get(str(index), named.get(index, f"LABEL_{index}"))) for index in range(count))


def _label_activation(config: dict[str, Any], num_labels: int) -> Activation:
    stated = config.get("sentence_transformers")
    name = stated.get("activation_fn") if isinstance(stated, dict) else None
    name = name or config.get("sbert_ce_default_activation_function")
    if name is not None:
        known = _ACTIVATIONS.get(str(name).rpartition(".")[2])
        if known is None:
            raise ModelFileError(
                f"The model's activation function is {str(name)[:80]!r}; known are {', '.join(_ACTIVATIONS)}."
            )
        return known
    problem = config.get("problem_type")
    if problem == "regression":
        return Activation.NONE
    if problem == "multi_label_classification" or num_labels == 1:
        return Activation.SIGMOID
    return Activation.SOFTMAX


@dataclass(frozen=True)
class _Module:
    kind: str
    path: str


def _with_modules(facts: PoolingFacts, config: dict[str, Any], folder: Path) -> PoolingFacts:
    """What sentence-transformers' own files say, module by module in their order."""
    facts = replace(facts, normalizes=False)
    has_pooled = False
    modules = _modules(folder)
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
    facts = _by_tokens(config, scores_by_id(config, _read(folder, path, "config.json")), ("LABEL_0",))
    return _with_prompts(_with_limits(facts, folder), folder)


def _modules(folder: Path) -> list[_Module]:
    listed = parse_objects(read_small(confined(folder, "modules.json"), MAX_FILE_BYTES), "modules.json")
    return [
        _Module(str(entry.get("type", "")).rpartition(".")[2], str(entry.get("path", ""))) for entry in listed
    ]


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
    said = _read(folder, "sentence_bert_config.json")
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
