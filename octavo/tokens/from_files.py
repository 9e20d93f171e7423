"""Builds a tokenizer from the files of a Hugging Face checkpoint, with the ids `AutoTokenizer` would give.

tokenizer.json is the truth, also about bos and eos around text (add_bos_token in the config does not
count beside it); the other files name special tokens. Only a folder without tokenizer.json makes us
import transformers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from octavo.base.errors import ModelFileError
from octavo.base.files import confined, has_file, open_regular, read_small
from octavo.tokens.parts import TokenizerParts

MAX_FILE_BYTES = 256 << 20
OWN_TEMPLATES = "additional_chat_templates"
_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def build_from_files(folder: Path) -> TokenizerParts:
    """Build the tokenizer of a checkpoint folder. Raises ModelFileError when files are missing or broken."""
    config = _read_json(folder, "tokenizer_config.json")
    special_map = _read_json(folder, "special_tokens_map.json")
    tokenizer = _open_tokenizer(folder, config)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    # The config wins over the map, as newer checkpoints only write the config.
    named = {**_named_tokens(special_map), **_named_tokens(config)}
    _add_missing_tokens(tokenizer, config, named)
    known = {name: token.content for name, token in named.items()}
    bos, eos = known.get("bos_token"), known.get("eos_token")
    eos_id = None if eos is None else tokenizer.token_to_id(eos)
    return TokenizerParts(
        tokenizer=tokenizer,
        bos_token_id=None if bos is None else tokenizer.token_to_id(bos),
        eos_token_ids=[] if eos_id is None else [eos_id],
        special_tokens=known,
        chat_templates=_read_templates(folder, config),
        response_template=_dict_or_none(config.get("response_template")),
        vocab_size=1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1),
    )


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    if not has_file(folder, name):
        return {}
    text = _read_text(folder, name)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{name} is not valid JSON ({error}). Download the model again.") from error
    if not isinstance(content, dict):
        raise ModelFileError(f"{name} has to hold a JSON object.")
    return content


def _open_tokenizer(folder: Path, config: Mapping[str, Any]) -> Tokenizer:
    if not has_file(folder, "tokenizer.json"):
        return _convert_with_transformers(folder, config)
    content = read_small(confined(folder, "tokenizer.json"), MAX_FILE_BYTES)
    try:
        return Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises bare Exception
        raise ModelFileError(f"tokenizer.json cannot be read: {error}. Download the model again.") from error


def _convert_with_transformers(folder: Path, config: Mapping[str, Any]) -> Tokenizer:
    """For checkpoints with only a sentencepiece, tiktoken or vocab.txt file."""
    sources = ("tokenizer.model", "vocab.json", "vocab.txt", "tiktoken.model", "tekken.json", "spiece.model")
    if not any(has_file(folder, name) for name in sources):
        raise ModelFileError(
            f"There is no tokenizer in the model's folder: looked for tokenizer.json, {', '.join(sources)}. "
            "Give another folder or repository as --tokenizer."
        )
    if config.get("auto_map"):
        raise ModelFileError(
            "The model has no tokenizer.json, and its tokenizer is code of its own (auto_map), which is "
            "never run. Give a folder or repository with a tokenizer.json as --tokenizer."
        )
    _refuse_what_is_not_here(folder)
    from transformers import AutoTokenizer

    try:
        converted = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        backend = converted.backend_tokenizer
    except Exception as error:  # any of a dozen libraries may speak here
        raise ModelFileError(
            f"The model has no tokenizer.json and its older tokenizer cannot be converted: {error}. "
            "Give a folder or repository with a tokenizer.json as --tokenizer."
        ) from error
    if not isinstance(backend, Tokenizer):
        raise ModelFileError(
            "The model's tokenizer is of a kind that cannot be converted. Give a folder or repository with a "
            "tokenizer.json as --tokenizer."
        )
    return backend


def _refuse_what_is_not_here(folder: Path) -> None:
    """For readers that open what they like: links that leave the folder, pipes, devices."""
    for entry in folder.iterdir():
        path = confined(folder, entry.name)
        if not path.is_dir():
            os.close(open_regular(path))


def _named_tokens(config: Mapping[str, Any]) -> dict[str, AddedToken]:
    named = {}
    for name in _NAMES:
        value = config.get(name)
        if isinstance(value, str):
            named[name] = AddedToken(value, normalized=False, special=True)
        elif isinstance(value, dict) and isinstance(value.get("content"), str):
            named[name] = _added_token(value, special=True)
    return named


def _added_token(entry: Mapping[str, Any], special: bool) -> AddedToken:
    return AddedToken(
        str(entry["content"]),
        single_word=bool(entry.get("single_word", False)),
        lstrip=bool(entry.get("lstrip", False)),
        rstrip=bool(entry.get("rstrip", False)),
        normalized=bool(entry.get("normalized", not special)),
        special=special,
    )


def _add_missing_tokens(
    tokenizer: Tokenizer, config: Mapping[str, Any], named: Mapping[str, AddedToken]
) -> None:
    """Tokens the config lists and tokenizer.json forgot. Names without a place in the vocabulary stay out."""
    present = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    listed = config.get("added_tokens_decoder")
    numbered = sorted(
        (int(key), entry)
        for key, entry in (listed.items() if isinstance(listed, dict) else ())
        if key.isdecimal() and isinstance(entry, dict) and isinstance(entry.get("content"), str)
    )
    for token_id, entry in numbered:
        if entry["content"] in present:
            continue
        known = tokenizer.token_to_id(entry["content"])
        if known is None and token_id != tokenizer.get_vocab_size(with_added_tokens=True):
            raise ModelFileError(
                f"tokenizer_config.json puts the token {entry['content']!r} at id {token_id}, where "
                "tokenizer.json has no room for it. The two files do not belong together."
            )
        tokenizer.add_tokens([_added_token(entry, special=bool(entry.get("special", False)))])
        present.add(entry["content"])
    for token in named.values():
        if token.content not in present and tokenizer.token_to_id(token.content) is not None:
            tokenizer.add_special_tokens([token])


def _dict_or_none(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None


def _read_templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Chat templates by name: own files win over the config's field."""
    templates = _templates_in_config(config.get("chat_template"))
    legacy = _read_json(folder, "chat_template.json").get("chat_template")
    if isinstance(legacy, str):
        templates["default"] = legacy
    if has_file(folder, "chat_template.jinja"):
        templates["default"] = _read_text(folder, "chat_template.jinja")
    for path in sorted((folder / OWN_TEMPLATES).glob("*.jinja")):
        templates[path.stem] = _read_text(folder, OWN_TEMPLATES, path.name)
    return templates


def _templates_in_config(value: Any) -> dict[str, str]:
    if isinstance(value, str):
        return {"default": value}
    if not isinstance(value, list):
        return {}
    named = {}
    for entry in value:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise ModelFileError("chat_template in tokenizer_config.json has an entry without a name.")
        named[entry["name"]] = str(entry.get("template", ""))
    return named


def _read_text(folder: Path, *names: str) -> str:
    try:
        return read_small(confined(folder, *names), MAX_FILE_BYTES).decode()
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{names[-1]} is not UTF-8 text.") from error
