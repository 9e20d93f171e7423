"""transformers' model on the tensors of a checkpoint: the reference in tests and benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def load_reference(path: Path) -> Any:
    """The checkpoint's own model class of transformers, float32, in evaluation mode."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from octavo.weights.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**checkpoint.config))
    assert type(model).__name__ in checkpoint.config["architectures"]
    state = {name: checkpoint.load(name, torch.float32) for name in checkpoint.tensor_names()}
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    # Made on the meta device, buffers that no checkpoint holds have to be computed again.
    model.model.rotary_emb = type(model.model.rotary_emb)(config=model.config)
    embedding = model.get_input_embeddings()
    if hasattr(embedding, "scalar_embed_scale"):  # Gemma's
        embedding.embed_scale = torch.tensor(embedding.scalar_embed_scale)
    missing = [name for name, value in model.named_parameters() if value.is_meta]
    assert not missing, f"the checkpoint lacks {missing}"
    return model.eval()
