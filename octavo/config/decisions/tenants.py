"""Who shares the engine with whom: tenants with each other, batches with everybody else."""

from __future__ import annotations

from octavo.base.errors import ConfigError
from octavo.config.decisions.known import Known, decided
from octavo.config.root import EngineConfig


def decide_tenants(config: EngineConfig, known: Known) -> EngineConfig:
    """What follows where keys have names."""
    has_names = config.server.api_key_file is not None
    if config.schedule.scheduling_policy == "auto":
        fair = ("fair", "keys have names: nobody waits because another asks for more")
        plain = ("fcfs", "without names of keys there is nobody to be fair to")
        config = decided(config, "schedule", known, scheduling_policy=fair if has_names else plain)
    if config.server.separate_prefix_caches is not None:
        return config
    why = (
        "keys have names: how soon an answer comes would show what other tenants asked"
        if has_names
        else "keys without names are taken for one tenant's"
    )
    return decided(config, "server", known, separate_prefix_caches=(has_names, why))


def decide_batches(config: EngineConfig, known: Known) -> EngineConfig:
    wish = config.server.batch_concurrency
    max_seqs = config.schedule.max_num_seqs
    assert max_seqs is not None, "max_num_seqs is resolved before what depends on it"
    if wish is None:
        share = max(1, max_seqs // 4)
        why = "a quarter of max_num_seqs: batches leave room for everybody else"
        return decided(config, "server", known, batch_concurrency=(share, why))
    if wish < 1:
        raise ConfigError(f"batch_concurrency is {wish}; at least 1.", param="batch_concurrency")
    return config
