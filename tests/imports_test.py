"""The floors of the house: imports go down, or sideways within a folder."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "refinenet_jax"

# Module or folder: floor. A module may import what is on a lower floor, and its own
# folder. On one floor, single modules may stand on each other; folders may not.
FLOORS = {
    "main": 8,
    "modes": 7,
    "assembly": 6,
    "segmenter": 5,
    "evaluation": 5,
    "training": 4,
    "inference": 4,
    "planning": 4,
    "checkpoints": 3,
    "data": 3,
    "weights": 3,
    "models": 2,
    "usage": 1,
    "compiling": 2,
    "config_check": 2,
    "liveness": 2,
    "lock": 2,
    "memory": 2,
    "pages": 2,
    "palettes": 1,
    "pictures": 2,
    "preemption": 1,
    "processes": 2,
    "sharding": 2,
    "tuning": 2,
    "watchdog": 1,
    "buckets": 1,
    "config": 1,
    "curves": 2,
    "files": 1,
    "log": 1,
    "provenance": 1,
    "errors": 0,
    "settings": 0,
    "labels": 0,
}
# What a room does not know although it is further down.
NEVER = {
    "models": set(FLOORS) - {"errors", "models"},
    "weights": {"config", "log", "processes", "sharding"},
    "data": {"config", "log", "processes", "sharding", "models", "provenance"},
    "segmenter": {"training"},
    "evaluation": {"training"},
}
READS_CONFIG = {"main", "modes", "assembly", "config_check", "config"}


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


def may_import(room: str, target: str) -> bool:
    if FLOORS[room] == FLOORS[target]:
        return not (PACKAGE / room).is_dir() and not (PACKAGE / target).is_dir()
    return FLOORS[room] > FLOORS[target]


def test_every_room_has_a_floor():
    names = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or p.is_dir()}
    assert names - {"__init__", "__pycache__", "py.typed", "templates"} == set(FLOORS)


def test_imports_never_go_up():
    rows = rooms()
    assert len(rows) > 40
    wrong = [
        (path, target)
        for path, room, target in rows
        if room != target and not may_import(room, target)
    ]
    assert not wrong


def test_rooms_that_take_plain_values_do_not_know_the_config():
    wrong = [(p, t) for p, room, t in rooms() if t in NEVER.get(room, set())]
    assert not wrong


def test_no_mode_imports_a_mode():
    assert not [(p, t) for p, room, t in rooms() if room == t == "modes"]


def test_the_config_stays_upstairs():
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room not in READS_CONFIG and path.name != "__init__.py":
            names = imports_of(path)
            assert not any(name.startswith("ml_collections") for name in names), path
            assert "refinenet_jax.config" not in names, path


def test_no_circles_within_a_folder():
    folders = [p for p in PACKAGE.rglob("*") if p.is_dir() and [*p.glob("*.py")]]
    for folder in [PACKAGE, *folders]:
        prefix = ".".join(folder.relative_to(PACKAGE.parent).parts) + "."
        edges = {
            path.stem: {
                name.removeprefix(prefix).split(".")[0]
                for name in imports_of(path)
                if name.startswith(prefix)
            }
            for path in folder.glob("*.py")
            if path.name != "__init__.py"
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


def test_what_a_loop_of_ones_own_imports_is_light():
    code = (
        "import sys\n"
        "from refinenet_jax import evaluation, models, training, weights\n"
        "print({name.split('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "'flax'" in loaded
    heavy = ("grain", "matplotlib", "orbax", "tensorboardX", "tensorflow_datasets")
    assert not [name for name in heavy if f"'{name}'" in loaded]


def test_paths_are_made_in_one_place():
    """What makes a path on disk of gs://bucket/run is kept out of reach."""
    # Data sets as their authors ship them are unpacked and listed on disk.
    allowed = {PACKAGE / "files.py", *(PACKAGE / "data" / "builders").glob("*.py")}
    for path in set(PACKAGE.rglob("*.py")) - allowed:
        modules = {name.split(".")[0] for name in imports_of(path)}
        assert not modules & {"pathlib", "shutil", "glob", "tempfile"}, path
        source = path.read_text()
        # epath's own make folders on disk of what is in a bucket.
        for call in ("os.replace(", "os.rename(", ".absolute()", ".resolve()"):
            assert call not in source or path.name == "config.py", (path, call)
        assert "epath.Path(" not in source or path.name == "buckets.py", path


def test_gradio_is_imported_in_its_mode_alone():
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if {name.split(".")[0] for name in imports_of(path)} & {"gradio", "fastapi"}
    }
    assert found == {"modes/demo.py"}
