"""Command line and YAML file made from the config groups: one option, one place where it is described.

Only options that the user really gave end up in the result, so that defaults, wishes and derived
values stay distinguishable (`octavo explain`). The command line wins over the file.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from octavo.base.errors import ConfigError
from octavo.config.root import EngineConfig, OptionSpec, iter_options

_DEST = "option."
_MODEL = "model_argument"
_FILE = "config_file"
_SUFFIXES = {
    "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
    "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40,
}  # fmt: skip


class FlagParser(argparse.ArgumentParser):
    """An argument parser that refuses with ConfigError, names near matches and accepts --under_scores."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(
            prog=prog, description=description, allow_abbrev=False, formatter_class=_HelpFormatter
        )

    def error(self, message: str) -> NoReturn:
        message = message.removeprefix("argument ").rstrip(".")
        raise ConfigError(f"{message}. See `{self.prog} --help`.")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse all of `arguments`. Raises ConfigError; --help prints and leaves through SystemExit(0)."""
        parsed, rest = self.parse_known_args([_with_dashes(argument) for argument in arguments])
        for argument in rest:
            self._refuse(argument)
        return parsed

    def _refuse(self, argument: str) -> NoReturn:
        if not argument.startswith("-") or argument == "-":
            self.error(f"unexpected argument {argument!r}")
        name = argument.partition("=")[0]
        near = get_close_matches(name, self._option_string_actions, n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ConfigError(f"There is no option {name}.{hint} See `{self.prog} --help`.", param=name)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)


def add_config_options(parser: argparse.ArgumentParser, groups: Collection[str] | None = None) -> None:
    """Add MODEL, --config and one flag per option of the named groups (None: all), under group headings."""
    parser.usage = "%(prog)s [MODEL] [options]"
    parser.add_argument(_MODEL, metavar="MODEL", nargs="?", help="Model to run, same as --model.")
    parser.add_argument(
        "--config",
        dest=_FILE,
        metavar="FILE",
        help="YAML file with options (max-num-seqs: 8); the command line wins over it.",
    )
    headings = {f.name: _heading(f) for f in dataclasses.fields(EngineConfig)}
    for group, heading in headings.items():
        if groups is not None and group not in groups:
            continue
        section = parser.add_argument_group(group, heading)
        for spec in iter_options():
            if spec.group == group and spec.flag:
                _add_flag(section, spec)


def _heading(group: dataclasses.Field[Any]) -> str:
    assert isinstance(group.default_factory, type), "groups are made by their class"
    return (group.default_factory.__doc__ or "").split(" None means")[0]


def _add_flag(section: argparse._ArgumentGroup, spec: OptionSpec) -> None:
    strings = ["--" + name.replace("_", "-") for name in spec.names]
    base = spec.type.removesuffix(" | None")
    settings: dict[str, Any] = {
        "dest": _DEST + spec.name,
        "default": argparse.SUPPRESS,
        "help": f"{spec.help} (default: {_show(spec)})".replace("%", "%%"),
    }
    if base == "bool":
        section.add_argument(*strings, action=argparse.BooleanOptionalAction, **settings)
    elif base == "list[str]":
        section.add_argument(*strings, action=_Extend, nargs="+", metavar="TEXT", **settings)
    else:
        convert, metavar = _CONVERTERS[base]
        if spec.choices is not None:
            convert = _one_of(spec.choices)
            metavar = "{" + ",".join(spec.choices) + "}"
        if base != spec.type:
            convert = _or_auto(convert)
        section.add_argument(*strings, type=convert, metavar=metavar, **settings)


def _show(spec: OptionSpec) -> str:
    if spec.default is None and spec.type in ("int | None", "float | None", "bool | None"):
        return "auto"
    if spec.default in (None, "", [], {}):
        return "none"
    if isinstance(spec.default, bool):
        return "on" if spec.default else "off"
    return str(spec.default)


class _Extend(argparse.Action):
    """Collects the values of a repeatable flag and remembers whether one use took several."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 (argparse's signature)
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        assert values is not None and not isinstance(values, str), "nargs='+' makes a list"
        setattr(namespace, self.dest, [*getattr(namespace, self.dest, []), *values])
        if len(values) > 1:
            namespace.greedy_flag = option_string


def parse_int(text: str) -> int:
    """A whole number, with an optional suffix: k, m, g, t are powers of 1000; K, M, G, T of 1024."""
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)([kmgtKMGT]?)", text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"must be a whole number such as 4096, 4k or 4K, not {text!r}")
    number, suffix = match.groups()
    if "." not in number:
        return int(number) * _SUFFIXES.get(suffix, 1)
    value = float(number) * _SUFFIXES.get(suffix, 1)
    if not value.is_integer():
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}")
    return int(value)


def parse_float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, not {text!r}") from None


def parse_object(text: str) -> dict[str, Any]:
    """A JSON object."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a JSON object; {text!r} is none: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"must be a JSON object such as '{{\"name\": 1}}', not {text!r}")
    return value


_CONVERTERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "int": (parse_int, "INT"),
    "float": (parse_float, "NUMBER"),
    "str": (str, "TEXT"),
    "dict[str, Any]": (parse_object, "JSON"),
}


def _one_of(choices: Sequence[str]) -> Callable[[str], str]:
    def converter(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"must be one of {', '.join(choices)}, not {text!r}")
        return text

    return converter


def _or_auto(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """For options whose None means 'chosen for you': the word auto spells it (and undoes the file's)."""

    def converter(text: str) -> Any:
        return None if text.lower() == "auto" else convert(text)

    return converter


def _with_dashes(argument: str) -> str:
    match = re.match(r"--[A-Za-z]\w*(?:[-_]\w+)*(?==|$)", argument)
    return argument if match is None else match[0].replace("_", "-") + argument[match.end() :]


def given_options(parsed: argparse.Namespace) -> dict[str, Any]:
    """What the user gave, by option name: the file's values, then the command line's over them."""
    flags = {key.removeprefix(_DEST): value for key, value in vars(parsed).items() if key.startswith(_DEST)}
    positional: str | None = getattr(parsed, _MODEL, None)
    if positional is not None:
        if flags.get("model", positional) != positional:
            raise ConfigError(
                f"The model is given twice: {positional!r} and --model {flags['model']!r}. Give one of them.",
                param="model",
            )
        flags["model"] = positional
    path: str | None = getattr(parsed, _FILE, None)
    options = {} if path is None else read_config_file(Path(path))
    options.update(flags)
    greedy: str | None = getattr(parsed, "greedy_flag", None)
    if greedy is not None and "model" not in options:
        raise ConfigError(
            f"{greedy} takes all values that follow it, and no model is named: one of them may be the model. "
            f"Put MODEL before {greedy}, or name it with --model.",
            param=greedy,
        )
    return options


def config_from(parsed: argparse.Namespace) -> EngineConfig:
    """The wishes as a config, not yet resolved. Raises ConfigError."""
    return EngineConfig.from_options(given_options(parsed))


def read_config_file(path: Path) -> dict[str, Any]:
    """Options of a YAML file by their own names; keys may use dashes, underscores and aliases.

    Raises ConfigError, naming the file, for anything that is not a flat mapping of known options.
    """
    import yaml

    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_unique_keys_loader())
    except OSError as error:
        raise ConfigError(f"Cannot read config file {path}: {error.strerror}.", param="config") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"Config file {path} is not valid YAML: {error}", param="config") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(
            f"Config file {path} holds a {type(content).__name__}; it must map options to values, "
            "one `max-num-seqs: 8` per line.",
            param="config",
        )
    return _own_names(content, path)


def _own_names(content: Mapping[Any, Any], path: Path) -> dict[str, Any]:
    spellings = {name: spec for spec in iter_options() for name in spec.names}
    options: dict[str, Any] = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        spec = spellings.get(name)
        if spec is None:
            near = get_close_matches(name, spellings, n=3)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise ConfigError(f"Config file {path}: there is no option {key!r}.{hint}", param=str(key))
        if spec.name in options:
            raise ConfigError(f"Config file {path}: {spec.name} is given twice.", param=spec.name)
        try:
            options[spec.name] = spec.check(value)
        except ConfigError as error:
            raise ConfigError(f"Config file {path}: {error.message}", param=spec.name) from None
    return options


def _unique_keys_loader() -> Any:
    """SafeLoader that refuses a key given twice instead of keeping the last one silently."""
    import yaml

    class UniqueKeysLoader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for key_node, _ in node.value:
                if not isinstance(key_node, yaml.ScalarNode):
                    continue  # A list or a mapping: the base class refuses it as a key.
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key_node.value!r} is given twice", key_node.start_mark
                    )
                seen.add(key_node.value)
            return super().construct_mapping(node, deep)

    return UniqueKeysLoader
