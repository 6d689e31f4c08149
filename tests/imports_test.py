"""The floors of the house: imports go down, or sideways within a folder."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "refinenet_jax"

# Module or folder: floor. A module may import what is on a lower floor, and its own
# folder. On one floor, single modules may stand on each other; folders may not.
FLOORS = {
    "main": 5,
    "modes": 4,
    "segmenter": 3,
    "training": 2,
    "inference": 2,
    "data": 2,
    "models": 1,
    "weights": 1,
    "usage": 1,
    "config_check": 2,
    "config": 1,
    "log": 1,
    "sharding": 1,
    "provenance": 1,
    "page": 1,
    "files": 0,
    "settings": 0,
    "labels": 0,
    "errors": -1,
}
NEVER = {
    "models": {"config", "log", "sharding"},
    "weights": {"config", "log", "sharding", "models"},
    "data": {"config", "log", "sharding", "models"},
}


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def rooms() -> list[tuple[str, str, str]]:
    """(file, its room, a room it imports)."""
    rows = []
    for path in PACKAGE.rglob("*.py"):
        if path.parent == PACKAGE and path.name == "__init__.py":
            continue
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for name in imports_of(path):
            if name.startswith("refinenet_jax."):
                rows.append((str(path), room, name.split(".")[1]))
    return rows


def test_every_room_has_a_floor():
    names = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or p.is_dir()}
    assert names - {"__init__", "__pycache__", "templates"} == set(FLOORS)


def test_imports_never_go_up():
    rows = rooms()
    assert len(rows) > 40
    wrong = [
        (path, target)
        for path, room, target in rows
        if room != target and FLOORS[target] >= FLOORS[room]
    ]
    assert not wrong


def test_rooms_that_take_plain_values_do_not_know_the_config():
    wrong = [(p, t) for p, room, t in rooms() if t in NEVER.get(room, set())]
    assert not wrong


def test_no_circles_within_a_folder():
    for folder in (p for p in PACKAGE.iterdir() if p.is_dir()):
        edges = {
            path.stem: {
                name.split(".")[2]
                for name in imports_of(path)
                if name.startswith(f"refinenet_jax.{folder.name}.")
            }
            for path in folder.glob("*.py")
        }
        while edges:
            free = [name for name, targets in edges.items() if not targets & set(edges)]
            assert free, f"circle among {sorted(edges)} of {folder.name}"
            for name in free:
                del edges[name]


def test_data_workers_need_no_jax_and_nothing_needs_tensorflow():
    for path in PACKAGE.rglob("*.py"):
        modules = {name.split(".")[0] for name in imports_of(path)}
        assert "tensorflow" not in modules, path
        if path.is_relative_to(PACKAGE / "data"):
            assert not modules & {"jax", "flax"}, path
