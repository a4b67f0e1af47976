"""Imports point one way: each layer may import what is below it, and a folder's own modules."""

import ast
from pathlib import Path

import pytest

import eosin

ROOT = Path(eosin.__file__).parent
# From the top; an import may go down, or stay inside its folder.
LAYERS = [
    {"cli", "__main__"},
    {"commands"},
    {"demo", "recipes", "reproduce"},
    {"report", "tasks", "pretrain", "tiling", "compat", "audit"},
    {"finetuning"},
    {"protocols"},
    {"embeddings"},
    {"nuclei"},
    {"results", "probes", "methods", "datasets", "weights", "store"},
    {"encoders", "engine", "images", "slides", "synthetic"},
    {"downloads"},
    {"provenance", "plugins", "errors", "atomic", "progress", "ray_cluster"},
]
WITHOUT_TORCH = ("slides", "store", "tiling", "images", "synthetic")
WITHOUT_TORCH += ("errors", "atomic", "plugins", "progress", "ray_cluster", "cli", "commands")
MODULES = sorted(ROOT.rglob("*.py"))


def room(dotted: str) -> str:
    """The folder or module of `eosin` that a dotted name belongs to; `eosin` for the package."""
    return dotted.split(".")[1] if "." in dotted else "eosin"


def dotted_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(path: Path, *, at_import_time_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if at_import_time_only else ast.walk(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.add(node.module)
            if node.module == "eosin":
                found |= {f"eosin.{alias.name}" for alias in node.names}
    return found


def is_module(name: str) -> bool:
    """Whether a room is one module in the package's folder, where modules use each other."""
    return (ROOT / f"{name}.py").is_file()


def layer_of(name: str) -> int:
    matches = [index for index, layer in enumerate(LAYERS) if name in layer]
    assert matches, f"{name} has no layer; add it to LAYERS where DESIGN puts it"
    return matches[0]


@pytest.mark.parametrize("path", MODULES, ids=dotted_name)
def test_imports_point_down_or_stay_in_the_folder(path: Path) -> None:
    own = room(dotted_name(path))
    if own == "eosin":
        return
    for imported in imports(path):
        if not imported.startswith("eosin.") or imported == "eosin.__version__":
            continue
        other = room(imported)
        beside = layer_of(other) == layer_of(own) and is_module(own) and is_module(other)
        allowed = other == own or layer_of(other) > layer_of(own) or beside
        assert allowed, f"{dotted_name(path)} imports {imported}"


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_light_parts_never_import_torch(name: str) -> None:
    paths = [ROOT / f"{name}.py"] if (ROOT / f"{name}.py").is_file() else (ROOT / name).glob("*.py")
    for path in paths:
        heavy = {module for module in imports(path) if module.split(".")[0] in ("torch", "timm")}
        assert not heavy, f"{dotted_name(path)} imports {heavy}"


@pytest.mark.parametrize("path", MODULES, ids=dotted_name)
def test_modules_fit_a_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 350


@pytest.mark.parametrize("path", MODULES, ids=dotted_name)
def test_names_say_what_is_inside(path: Path) -> None:
    assert not {"utils", "helpers", "common", "misc", "manager"} & set(path.stem.split("_"))
