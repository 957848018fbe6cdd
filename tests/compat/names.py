"""What a specification lists: names, arguments, defaults. Each is here, or in docs/compatibility.md with a reason."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

DOCUMENT = Path(__file__).parents[2] / "docs" / "compatibility.md"

#: Stands for an argument without a default.
REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Name:
    """A name of the original, dotted; of a function also the arguments, in order, with their defaults."""

    path: str
    arguments: dict[str, Any] | None = None

    def __str__(self) -> str:
        return self.path


def section(title: str) -> str:
    """The text of a section of the document, as far as it says what is not here."""
    text = DOCUMENT.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    return text[text.index("\nNot here: ") :]


def check_modules(modules: dict[str, str], package: str) -> None:
    """Each module can be imported from `package` under its name, and has these names."""
    for module, names in modules.items():
        found = importlib.import_module(f"{package}.{module}")
        assert [name for name in names.split() if not hasattr(found, name)] == [], module


def check(name: Name, module: ModuleType, title: str) -> None:
    """`module` has the name with the arguments, or the section says that it is not here."""
    found: Any = module
    for part in name.path.split("."):
        if not hasattr(found, part):
            assert f"`{name.path.rpartition('.')[2]}`" in section(title), (
                f"{name} is missing without a reason"
            )
            return
        found = getattr(found, part)
    if name.arguments is None:
        return
    parameters = [each for each in inspect.signature(found).parameters.values() if each.name != "self"]
    for each, (argument, default) in zip(parameters, name.arguments.items(), strict=False):
        assert each.name == argument
        assert each.default == default
        assert each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert len(parameters) >= len(name.arguments)
    for each in parameters[len(name.arguments) :]:  # what is new must not be in the way
        assert each.default is not REQUIRED, each.name
