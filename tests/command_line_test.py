"""Flags, help and configs: all that the program does before it does anything."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from refinenet_jax import config as configs
from refinenet_jax import main as program
from refinenet_jax.errors import UserError
from refinenet_jax.settings import SETTINGS
from refinenet_jax.settings.network import VARIANTS

REPOSITORY = Path(__file__).parent.parent
MODES = [
    "train",
    "eval",
    "predict",
    "convert",
    "export",
    "plan",
    "demo",
    "check_data",
    "show",
]

OWN = """
from refinenet_jax.config import default

def get_config(variant=None):
    config = default()
    config.model.variant = variant or "light_resnet50"
    return config
"""


@pytest.fixture
def say(capsys):
    """Runs a command line in this process; gives what it prints."""

    def say(*arguments):
        program.main(["refinenet", *arguments])
        return capsys.readouterr().out

    return say


def refusal(*arguments):
    """The one line that a command line is refused with."""
    with pytest.raises(UserError) as error:
        program.main(["refinenet", *arguments])
    assert "\n" not in str(error.value)
    return str(error.value)


LIGHT = """
import contextlib, sys
from refinenet_jax import main
for arguments in (
    ["--help"],
    ["--help=all"],
    ["--config=voc:resnet50", "--mode=show"],
    ["--wordkir=x"],
    ["--config=vok"],
    ["--config=voc", "--config.train.num_steps=many"],
    ["--config=voc:resnet77"],
    ["--config=voc", "--mode=predict"],
):
    with contextlib.suppress(main.UserError):
        main.main(["refinenet", *arguments])
    print("END")
heavy = {"jax", "flax", "optax", "orbax", "tensorflow_datasets", "grain", "matplotlib",
         "torch", "cv2", "scipy"}
sys.exit(" ".join(heavy & set(sys.modules)) or 0)
"""


def test_help_and_refusals_come_before_anything_slow_is_imported():
    done = subprocess.run(
        [sys.executable, "-c", LIGHT],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr.strip()
    assert done.returncode == 0
    assert done.stdout.count("END") == 8


def test_the_program_tells_by_its_exit_code_and_on_the_right_stream():
    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "refinenet_jax.main", *arguments],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )

    helped = run("--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    assert "--config=CONFIG" in helped.stdout
    refused = run("--mode=fly")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("error: --mode=fly is unknown; known: train, ")
    assert len(refused.stderr.splitlines()) == 1


def test_help_names_modes_configs_variants_flags_and_groups(say):
    text = say("--help")
    assert text == say("-h")
    for mode in MODES:
        assert f"\n  {mode} " in text
    for path in (REPOSITORY / "configs").glob("*.py"):
        assert f"\n  {path.stem} " in text
    for name in (*VARIANTS, "--workdir", "--images", "--coordinator_address"):
        assert name in text
    assert f"one of {len(SETTINGS)}: --help=all" in text
    assert "\n  optimizer " in text
    assert max(map(len, text.splitlines())) <= 88
    assert say("--help", "--wordkir=x") == text


def test_help_tells_default_text_and_rule_of_fields(say):
    one = say("--help=train.num_steps")
    assert one == say("--help", "config.train.num_steps")
    assert one.splitlines() == [
        "train.num_steps = 240",
        "    Training ends after this step.",
        "    Must be a whole number in 1..2147483647.",
    ]
    assert one in say("--help=train")
    assert "model.dtype" not in say("--help=train")
    every = say("--help=all")
    for name, setting in SETTINGS.items():
        assert f"{name} = {setting.default!r}\n" in every
    assert refusal("--help=optimiser").endswith("did you mean optimizer?")
    assert refusal("--help=num_steps").endswith("did you mean train.num_steps?")


def test_modes_are_those_of_the_folder_and_take_what_the_table_says():
    assert list(program._MODES) == MODES
    for mode in program._MODES.values():
        path = REPOSITORY / "refinenet_jax" / "modes" / f"{mode.module}.py"
        [run] = [
            node
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.FunctionDef) and node.name == "run"
        ]
        assert len(run.args.args) == 2 + len(mode.takes)
        assert set(mode.takes) <= set(program._FLAGS)


def test_show_prints_every_field_and_what_differs_and_writes_nothing(
    say, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    lines = say("--config=default", "--mode=show").splitlines()
    assert lines[:2] == [
        "files would go to runs/default",
        f"{len(SETTINGS)} settings, 0 of them (*) not as in the default:",
    ]
    assert [line.split(" = ")[0].strip() for line in lines[3:]] == list(SETTINGS)
    text = say(
        "--config=voc:resnet50",
        "--mode=show",
        "--config.train.num_steps=7",
        "--workdir=x",
    )
    assert "files would go to x\n" in text
    assert "\n* train.num_steps = 7  (default 240)\n" in text
    assert "\n* model.variant = 'resnet50'  (default 'light_resnet18')\n" in text
    assert "\n  seed = 0\n" in text
    assert not list(tmp_path.iterdir())


def test_values_are_read_as_their_fields_are(say):
    text = say(
        "--mode=show",
        "--config.optimizer.learning_rate=1",  # before the config that it changes
        "--config=default",
        "--config.eval.scales=0.5",
        "--config.eval.scales=1.25",
        "--config.data.scale_range=(1,2)",
        "--config.eval.buckets=((64,96),)",
        "--config.export.formats=onnx",
        "--config.model.input_scales=1.2",
        "--config.eval.flip",
        "--config.init_classifier=false",
        "--config.data.folder.offset",
        "-1",
        "--config.train.num_steps=1",
        "--config.train.num_steps=40_000",
        "--config.init_from=None",
        "--config.data.dir=(a)",
    )
    for line in (
        "optimizer.learning_rate = 1.0",
        "eval.scales = (0.5, 1.25)",
        "data.scale_range = (1, 2)",
        "eval.buckets = ((64, 96),)",
        "export.formats = ('onnx',)",
        "model.input_scales = (1.2,)",
        "eval.flip = True",
        "init_classifier = False",
        "data.folder.offset = -1",
        "train.num_steps = 40000",
        "init_from = 'None'",
        "data.dir = '(a)'",
    ):
        assert f"* {line}  " in text


@pytest.mark.parametrize("where", ["checkout", "elsewhere"])
def test_a_config_is_found_by_name_from_any_folder(where, say, tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY if where == "checkout" else tmp_path)
    (tmp_path / "voc").mkdir()  # a folder of that name is no config
    shown = {
        say(f"--config={name}:resnet50", "--mode=show")
        for name in (
            "voc",
            "voc.py",
            "configs/voc",
            "configs/voc.py",
            "./configs/voc.py",
        )
    }
    shown.add(say(f"--config={REPOSITORY}/configs/voc.py:resnet50", "--mode=show"))
    [text] = shown
    assert "files would go to runs/voc_resnet50\n" in text
    assert "data.name = 'voc2012'" in text


def test_a_config_of_ones_own_goes_before_one_of_the_package(
    say, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    for path in ("mine.py", "configs/voc.py"):
        (tmp_path / path).write_text(OWN)
    text = say("--config=mine.py", "--mode=show")
    assert "files would go to runs/mine\n" in text
    assert "1 of them" in text
    own = say("--config=configs/voc.py:resnet18", "--mode=show")
    assert "files would go to runs/voc_resnet18\n" in own
    assert "data.name = 'shapes'" in own
    assert "data.name = 'voc2012'" in say("--config=voc", "--mode=show")


def test_an_installed_package_has_its_configs_inside(say, tmp_path, monkeypatch):
    shutil.copytree(REPOSITORY / "refinenet_jax", tmp_path / "refinenet_jax")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "stray.py").write_text("of somebody else")
    shutil.copytree(REPOSITORY / "configs", tmp_path / "refinenet_jax" / "configs")
    done = subprocess.run(
        [sys.executable, "-m", "refinenet_jax.main", "--config=voc", "--mode=show"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == say("--config=voc", "--mode=show")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def get_config(:", "invalid syntax (mine.py, line 1)"),
        (
            "\nimport nowhere_at_all",
            "mine.py, line 2: No module named 'nowhere_at_all'",
        ),
        ("x = 1", "has no attribute 'get_config'"),
        ("def get_config():\n    raise ValueError('a\\nb')", "mine.py, line 2: a b"),
        ("def get_config():\n    return {}", "begin a config with"),
        (OWN.replace("return", "config.train.steps = 3\n    return"), ", line 7: "),
        (OWN.replace("return", "config.seed = -1\n    return"), "config.seed=-1 must"),
        (OWN.replace("return config", "return None"), "mine.py"),
        (
            OWN.replace("return config", "return type(config)({'seed': 0})"),
            "config.init_from is missing",
        ),
        (
            OWN.replace("return", "config.unlock(); config.typo = 1\n    return"),
            "config.typo is unknown; known there: data, demo, eval, ",
        ),
    ],
)
def test_a_config_that_is_wrong_is_told_in_one_line(source, message, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(source)
    assert message in refusal(f"--config={path}")


def test_a_config_may_bring_a_backbone_of_its_own(say, tmp_path, monkeypatch):
    from refinenet_jax.models import backbones

    monkeypatch.setitem(backbones.VARIANTS, "mine", backbones.VARIANTS["resnet18"])
    assert "model.variant = 'mine'" in say("--config=default:mine", "--mode=show")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mode=fly"], "--mode=fly is unknown; known: train, eval, predict, convert"),
        (["--mode=evaluate"], "did you mean eval"),
        (["--config.train.steps=3"], "config.train.steps is unknown; known there:"),
        (["--config.train.steps"], "config.train.steps is unknown; known there:"),
        (["--config.train=3"], "config.train is a group"),
        (["--config.train.num_steps=many"], "config.train.num_steps='many' must be"),
        (["--config.train.num_steps=1.5"], "config.train.num_steps=1.5 must be"),
        (["--config.train.num_steps=True"], "config.train.num_steps=True must be"),
        (["--config.train.num_steps"], "--config.train.num_steps: expected one"),
        (["--config.eval.flip=2"], "config.eval.flip='2' must be True or False"),
        (["--config.optimizer.learning_rate=inf"], "learning_rate='inf' must be"),
        (["--config.optimizer.learning_rate=1e999"], "learning_rate=inf must be"),
        (["--config.eval.scales=(1,nan)"], "config.eval.scales=('(1,nan)',) must be"),
        (["--config.eval.scales=" + "(" * 9000], "config.eval.scales=('(((("),
        (["--config.init_from=" + "x" * 5000], "xxx... must be text on one line"),
        (["--config.model.variant=resnet77"], "known: resnet18, resnet34, resnet50"),
        (["--config.optimizer.schedule=linear"], "known: constant, step, poly, cosine"),
        (["--config.data.name=mars"], "known: ade20k, camvid, cityscapes"),
        (["--wordkir=x"], "--wordkir is unknown; known: --help, --config, --mode, "),
        (["--wordkir=x"], "did you mean --workdir?"),
        (["-config=voc"], "-config is unknown"),
        (["stray"], "stray is no flag"),
        (["--only_check_args"], "--mode=show"),
        (["--mode=predict"], "--mode=predict needs --images=FILE, FOLDER or 'GLOB'"),
        (["--mode=convert"], "--mode=convert needs --weights=FILE"),
        (["--num_processes=2"], "go together: give all three or none"),
        (["--num_processes=0"], "--num_processes=0 must be a whole number in 1..65536"),
        (
            ["--coordinator_address=here"],
            "--coordinator_address=here must be HOST:PORT",
        ),
        (
            ["--coordinator_address=a:1", "--num_processes=2", "--process_id=2"],
            "--process_id=2 must be less than --num_processes=2",
        ),
        (["--config=vok"], "--config=vok is unknown; known: ade20k, camvid, "),
        (["--workdir=a\nb"], r"--workdir='a\nb' must be text on one line"),
        (["--config=vok"], "did you mean voc?"),
        (["--config=configs/nowhere.py"], "--config=configs/nowhere.py is unknown"),
        (["--config=voc:light_resnet5"], "did you mean light_resnet50?"),
    ],
)
def test_bad_input_is_one_clear_line(arguments, message):
    assert message in refusal("--config=default", *arguments)


def test_a_missing_config_is_refused():
    assert "--config=NAME is missing; known: ade20k, camvid, " in refusal()


def test_configs_that_are_known_are_those_of_the_folder():
    there = sorted(path.stem for path in (REPOSITORY / "configs").glob("*.py"))
    assert list(configs.known()) == there
