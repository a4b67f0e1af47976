"""Plug-in folders: a module's name is its registry key, and nothing is imported to list them."""

import importlib
import importlib.util
import pkgutil
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from eosin.errors import UsageError


def names(package: str) -> list[str]:
    """Lists the choices of a plug-in folder, such as `"methods"`, without importing any of them.

    A choice is every module of `eosin.<package>` without a leading underscore, and every entry
    point of the group `eosin.<package>` that an installed distribution declares.
    """
    spec = importlib.util.find_spec(f"eosin.{package}")
    if spec is None or spec.submodule_search_locations is None:
        raise ValueError(f"eosin.{package} is not a plug-in folder")
    own = {m.name for m in pkgutil.iter_modules(spec.submodule_search_locations)}
    outside = {point.name for point in entry_points(group=f"eosin.{package}")}
    return sorted(name for name in own | outside if not name.startswith("_"))


def load(package: str, name: str) -> ModuleType:
    """Imports one choice of a plug-in folder.

    Args:
        package: the folder below `eosin`, such as `"methods"`.
        name: a name that `names(package)` lists, or `file:PATH.py` / `module:DOTTED.NAME` for a
            module of the user's own.

    Raises:
        UsageError: there is no such choice; the message lists those that exist.
    """
    kind, _, target = name.partition(":")
    if kind == "module" and target:
        return importlib.import_module(target)
    if kind == "file" and target:
        return _load_file(package, target)
    for point in entry_points(group=f"eosin.{package}"):
        if point.name == name:
            return point.load()
    if name not in names(package):
        choices = ", ".join(names(package))
        raise UsageError(f"There is no {name!r} among the {package}; choose one of: {choices}.")
    return importlib.import_module(f"eosin.{package}.{name}")


def _load_file(package: str, path: str) -> ModuleType:
    if not Path(path).is_file():
        raise UsageError(f"{path}, which should be one of the {package}, does not exist.")
    name = f"eosin_{package}_{Path(path).stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is not a Python file that can be loaded as one of the {package}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
