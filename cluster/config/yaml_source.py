"""YAML text to plain data that remembers its lines, with environment variables filled in.

Reads what PyYAML's SafeLoader reads, and refuses what a configuration file never means: duplicate keys, keys
that are not text, tags, and aliases that grow without end. Knows nothing of pipelines; ``pipeline.py`` does.

No message holds a value from the file or the environment, because a value may be a credential: also an
unquoted password that begins with ``*``, ``&`` or ``!``, which YAML takes for its own syntax.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

#: Where a value stands: mapping keys and list indices from the root.
KeyPath = tuple[str | int, ...]

#: Levels of nesting and values (aliases expanded) of a file; a hand-written file has a hundredth of either.
MAX_DEPTH = 32
MAX_VALUES = 20_000

#: In the text of every fault that is a variable without value, and of no other.
UNSET = "is not set"

_YAML = "tag:yaml.org,2002:"
_VARIABLE = re.compile(r"\$\$|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})?")
_TAG = "a YAML tag (!...) is not used here; remove it, or put the value in quotes"
_QUOTED = re.compile(r"""(['"])(.*?)\1""")


class Expanded(str):
    """Text in which a variable was filled in: it may stand for a number, which quoted text may not."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong: the line (from 1), the key's path, and ``what is wrong; what to do``."""

    line: int
    path: KeyPath
    text: str


@dataclass
class Document:
    """A file as data, with the lines of keys and items; `data` is None if it could not be read at all."""

    data: Any = None
    lines: dict[KeyPath, int] = field(default_factory=lambda: {(): 1})
    faults: list[Fault] = field(default_factory=list)

    def known(self, path: KeyPath) -> KeyPath:
        """The longest beginning of `path` that stands in the file."""
        while path not in self.lines:
            path = path[:-1]
        return path

    def fault(self, path: KeyPath, text: str) -> None:
        """Record a fault at `path`, or for a key that is absent at the nearest key above it."""
        self.faults.append(Fault(self.lines[self.known(path)], path, text))


def show_path(path: KeyPath) -> str:
    """``tables[0].name``; keys that are not plain words are shown as JSON strings, so that it is one line."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = re.fullmatch(r"[\w.-]{1,80}", part, re.ASCII)
            text += ("." if text else "") + (part if plain else json.dumps(part[:80]))
    return text


def read(text: str, env: Mapping[str, str]) -> Document:
    """Read YAML `text`, filling in ``${NAME}`` and ``${NAME:-default}`` from `env`; never raises."""
    document = Document()
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            document.fault((), "the file is empty; start from examples/pipeline.yaml")
        else:
            document.data = _Builder(loader, document, env).value(node, ())
    except _Refused as refusal:
        document.fault((), str(refusal))
    except RecursionError:
        document.fault((), "nested too deeply; a pipeline file has about six levels")
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        document.faults.append(Fault(line, (), "a character that YAML forbids; save as UTF-8 text"))
    except yaml.MarkedYAMLError as error:
        document.faults.append(_syntax_fault(error))
    except (ValueError, OverflowError):  # chr() of an escape beyond Unicode, such as "\UFFFFFFFF"
        document.fault((), "an escape such as \\U names no character; correct it or use single quotes")
    return document


def _syntax_fault(error: yaml.MarkedYAMLError) -> Fault:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 1
    problem = str(error.problem or error.context or "not YAML")
    if "undefined alias" in problem:
        return Fault(line, (), "a value that begins with * is a YAML alias; put the value in quotes")
    problem = _QUOTED.sub(
        lambda quoted: quoted[0] if len(quoted[2]) < 2 or quoted[2][0] == "<" else "…", problem
    )
    return Fault(line, (), f"YAML syntax: {problem}; check indentation, quotes and brackets near this line")


class _Refused(Exception):
    """The file cannot be a configuration; its text says why."""


class _Builder:
    def __init__(self, loader: yaml.SafeLoader, document: Document, env: Mapping[str, str]) -> None:
        self._loader = loader
        self._document = document
        self._env = env
        self._count = 0

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self._count += 1
        if self._count > MAX_VALUES or len(path) > MAX_DEPTH:
            raise _Refused("too large or too deep, perhaps through aliases; write the values out")
        if isinstance(node, yaml.MappingNode) and node.tag == _YAML + "map":
            return self._mapping(node, path, 0)
        if isinstance(node, yaml.SequenceNode) and node.tag == _YAML + "seq":
            return [self._item(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        self._document.fault(path, _TAG)
        return None

    def _item(self, node: yaml.Node, path: KeyPath) -> Any:
        self._document.lines[path] = node.start_mark.line + 1
        return self.value(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath, merges: int) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _YAML + "merge":
                for parent in self._parents(value_node, path, merges):
                    merged = {**self._mapping(parent, path, merges + 1), **merged}
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _YAML + "merge":
                continue
            line = key_node.start_mark.line + 1
            if key_node.tag != _YAML + "str" or _has_surrogate(key_node.value):
                self._document.faults.append(Fault(line, path, "a key that is not text; put it in quotes"))
                continue
            key = key_node.value
            here = (*path, key)
            if key in own:
                first = self._document.lines[here]
                text = f"given twice, first on line {first}; keep one of them"
                self._document.faults.append(Fault(line, here, text))
                continue
            self._document.lines[here] = line
            own[key] = self.value(value_node, here)
        return merged | own

    def _parents(self, node: yaml.Node, path: KeyPath, merges: int) -> Iterator[yaml.MappingNode]:
        """The mappings that a merge key (``<<``) names, the first of them winning."""
        for parent in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            self._count += 1
            if merges > MAX_DEPTH or self._count > MAX_VALUES:
                raise _Refused("merge keys (<<) without end; write the values out")
            if isinstance(parent, yaml.MappingNode):
                yield parent
            else:
                self._document.fault(path, "a merge key (<<) takes a mapping; write the values out")

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        try:
            value = self._loader.construct_object(node)
        except Exception:  # PyYAML raises whatever int(), float() or date() raise
            self._document.fault(path, "not a value that YAML can read; put it in quotes")
            return None
        if isinstance(value, bytes):
            self._document.fault(path, _TAG)
            return None
        if not isinstance(value, str):
            return value
        if _has_surrogate(value):
            self._document.fault(path, "half of a surrogate pair is not text; write the character itself")
            return ""
        return self._expand(value, path)

    def _expand(self, value: str, path: KeyPath) -> str:
        if "$" not in value:
            return value

        def fill(match: re.Match[str]) -> str:
            name, default = match.groups()
            if match[0] == "$$":
                return "$"
            if name is None:
                self._document.fault(path, "${ begins no variable; write ${NAME}, ${NAME:-default} or $${")
                return ""
            found = self._env.get(name)
            if default is not None:
                return found or default
            if found is None:
                text = f"environment variable {name} {UNSET}; set it, or write ${{{name}:-default}}"
                self._document.fault(path, text)
            return found or ""

        return Expanded(_VARIABLE.sub(fill, value))


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
