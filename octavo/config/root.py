"""EngineConfig: the groups and nothing else, and how flat options become groups."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from octavo.base.errors import ConfigError
from octavo.config.admin import AdminConfig
from octavo.config.cache import CacheConfig
from octavo.config.model import ModelConfig
from octavo.config.observe import ObserveConfig
from octavo.config.schedule import ScheduleConfig
from octavo.config.server import ServerConfig
from octavo.config.supervision import SupervisionConfig

GROUPS: dict[str, type[Any]] = {
    "model": ModelConfig,
    "cache": CacheConfig,
    "schedule": ScheduleConfig,
    "server": ServerConfig,
    "observe": ObserveConfig,
    "admin": AdminConfig,
    "supervision": SupervisionConfig,
}


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """All groups. Only `cli/` and `engine/` see it whole; every other class takes its own group."""

    model: ModelConfig = field(default_factory=ModelConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    observe: ObserveConfig = field(default_factory=ObserveConfig)
    admin: AdminConfig = field(default_factory=AdminConfig)
    supervision: SupervisionConfig = field(default_factory=SupervisionConfig)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> EngineConfig:
        """Build from flat names ({"max_num_seqs": 8, "gpu_memory_utilization": 0.8}).

        Raises ConfigError for unknown names, wrong types and values outside a field's choices.
        """
        spellings = {name: spec for spec in iter_options() for name in spec.names}
        values: dict[str, dict[str, Any]] = {}
        for name, value in options.items():
            key = name.replace("-", "_")
            spec = spellings.get(key)
            if spec is None:
                near = get_close_matches(key, spellings, n=3)
                hint = f" Did you mean {' or '.join(near)}?" if near else ""
                raise ConfigError(f"There is no option {name!r}.{hint}", param=name)
            group = values.setdefault(spec.group, {})
            if spec.name in group:
                raise ConfigError(
                    f"{name!r} is given twice: it is another name of {spec.name!r}.", param=name
                )
            group[spec.name] = spec.check(value)
        return cls(**{name: group(**values.get(name, {})) for name, group in GROUPS.items()})

    def option_values(self) -> dict[str, Any]:
        """Flat view: every option's name and value."""
        return {spec.name: getattr(getattr(self, spec.group), spec.name) for spec in iter_options()}


@dataclass(frozen=True)
class OptionSpec:
    """One option as the command line, the YAML file and the docs see it."""

    group: str
    name: str
    type: str
    """The annotation: 'int', 'int | None', 'list[str]', 'bool' ..."""
    default: Any
    help: str
    aliases: tuple[str, ...]
    choices: tuple[str, ...] | None
    flag: bool
    is_secret: bool

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)

    def shown(self, value: Any) -> Any:
        """`value`, or of a secret how many there are."""
        if not self.is_secret:
            return value
        return f"{len(value)} set" if value else "none"

    def check(self, value: Any) -> Any:
        """Return `value` in the field's type or raise ConfigError."""
        base = self.type.removesuffix(" | None")
        if value is None and base != self.type:
            return None
        if base == "list[str]" and isinstance(value, str):
            value = [value]
        if base == "float" and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        wanted: dict[str, type] = {
            "int": int, "float": float, "str": str, "bool": bool, "list[str]": list, "dict[str, Any]": dict,
        }  # fmt: skip
        fits = isinstance(value, wanted[base]) and not (base == "int" and isinstance(value, bool))
        if not fits or (base == "list[str]" and not all(isinstance(item, str) for item in value)):
            raise ConfigError(f"{self.name} must be of type {self.type}, not {value!r}.", param=self.name)
        if base == "int" and not -(2**63) <= value < 2**64:
            raise ConfigError(f"{self.name} is {value}, a number of more than 64 bits.", param=self.name)
        if self.choices is not None and value not in self.choices:
            raise ConfigError(
                f"{self.name} must be one of {', '.join(self.choices)}, not {value!r}.", param=self.name
            )
        return value


def iter_options() -> Iterator[OptionSpec]:
    """Every option of every group, in order."""
    for group, kind in GROUPS.items():
        for f in dataclasses.fields(kind):
            yield OptionSpec(
                group=group,
                name=f.name,
                type=str(f.type),
                default=_default(f),
                help=f.metadata["help"],
                aliases=f.metadata["aliases"],
                choices=f.metadata["choices"],
                flag=f.metadata["flag"],
                is_secret=f.metadata["is_secret"],
            )


def _default(f: dataclasses.Field[Any]) -> Any:
    if f.default_factory is not dataclasses.MISSING:
        return f.default_factory()
    return f.default
