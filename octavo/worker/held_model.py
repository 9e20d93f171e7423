"""HeldModel: a worker's model and its files: loaded, moved out of a GPU's memory, dropped, loaded again."""

from __future__ import annotations

import torch

from octavo.base.errors import ModelFileError
from octavo.config.model import ModelConfig
from octavo.layers.placement import Placement
from octavo.messages.kv import KVSpec, StateSpec
from octavo.models.build import build_model
from octavo.models.contract import Backbone, recurrent_layers
from octavo.models.load import Placed, load_weights, move_weights
from octavo.weights.checkpoint import Checkpoint, open_checkpoint
from octavo.worker.memory import check_weights_fit


class HeldModel:
    """Takes the checkpoint over and closes it."""

    def __init__(
        self, checkpoint: Checkpoint, config: ModelConfig, placement: Placement, *, kv_dtype: str
    ) -> None:
        self._checkpoint = checkpoint
        self._config = config
        self._placement = placement
        self._kv_dtype = kv_dtype
        self._model: Backbone | None = None
        self.kv_layers: list[KVSpec] = []
        """What its layers keep, as it is kept."""
        self.recurrent_layers: list[StateSpec] = []

    @property
    def model(self) -> Backbone:
        assert self._model is not None, "it was loaded and not dropped"
        return self._model

    @property
    def remembers(self) -> bool:
        """Texts are computed bit by bit: something of them is kept from step to step."""
        return bool(self.kv_layers or self.recurrent_layers)

    def load(self) -> Placed:
        """Build it and put its weights in. Raises ModelFileError or ConfigError."""
        self._model, placed = self._loaded()
        self.kv_layers, self.recurrent_layers = self._kept_layers(self._model)
        return placed

    def leave_device(self) -> None:
        """Keep the weights in the host's memory, if there are any."""
        if self._model is not None:
            move_weights(self._model, torch.device("cpu"))

    def drop(self) -> None:
        self._model = None

    def return_to_device(self) -> None:
        """From the host's memory or from the same files: weights may have changed there, shapes may not."""
        if self._model is None:
            self._model = self._loaded_again()
        move_weights(self._model, self._placement.device)

    def close(self) -> None:
        """Drop it for good. Idempotent."""
        self._model = None
        self._checkpoint.close()

    def _loaded(self) -> tuple[Backbone, Placed]:
        check_weights_fit(self._checkpoint, self._config, self._placement.device)
        model = build_model(self._checkpoint, self._config, self._placement)
        placed = load_weights(model, self._checkpoint)
        self._checkpoint.close()
        return model, placed

    def _loaded_again(self) -> Backbone:
        self._checkpoint = open_checkpoint(
            self._checkpoint.path, self._config.load_format, self._config.hf_overrides
        )
        model, _ = self._loaded()
        if self._kept_layers(model) != (self.kv_layers, self.recurrent_layers):
            raise ModelFileError(
                "The checkpoint has become another model since the start. Put the old one back or start anew."
            )
        return model

    def _kept_layers(self, model: Backbone) -> tuple[list[KVSpec], list[StateSpec]]:
        return [spec.kept_as(self._kv_dtype) for spec in model.kv_layers()], recurrent_layers(model)
