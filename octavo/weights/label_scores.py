"""What models that score labels say of them in their config: names, activation, which state they look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from octavo.base.errors import ModelFileError
from octavo.config.pooling import Activation, PoolingFacts, PoolingType, TokenScores

MAX_LABELS = 2**16
ENCODERS = frozenset(
    {
        "bert",
        "camembert",
        "deberta-v2",
        "distilbert",
        "electra",
        "gte",
        "modernbert",
        "mpnet",
        "new",
        "nomic_bert",
        "roberta",
        "xlm-roberta",
    }
)
"""model_type of those whose tokens see all others."""
REMADE = frozenset({"eurobert"})
"""Of those that are a decoder's layers, and see both ways without saying so."""


def sees_both_ways(config: Mapping[str, Any]) -> bool:
    """Whether tokens see those after them: of encoders, and of decoders that were made into one."""
    is_remade = config.get("is_causal") is False or config.get("use_bidirectional_attention") is True
    return is_remade or config.get("model_type") in ENCODERS | REMADE


_ACTIVATIONS = {"Identity": Activation.NONE, "Sigmoid": Activation.SIGMOID, "Softmax": Activation.SOFTMAX}


def num_labels(config: Mapping[str, Any]) -> int:
    return len(_labels(config))


def classifying(config: dict[str, Any]) -> PoolingFacts:
    """Of a model with a head for labels."""
    labels = _labels(config)
    return PoolingFacts(
        task="classify",
        pooling=_head_pooling(config, config.get("model_type") in ENCODERS),
        why_pooling="what the model's head was trained on",
        num_outputs=len(labels),
        is_encoder=sees_both_ways(config),
        activation=_label_activation(config, len(labels)),
        labels=labels,
    )


def by_tokens(config: dict[str, Any], scores: TokenScores, labels: tuple[str, ...]) -> PoolingFacts:
    """Of a model that predicts the next token, and is asked which one it is."""
    if sees_both_ways(config):
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
