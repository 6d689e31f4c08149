import gzip
import json

import jax
import jax.numpy as jnp

from refinenet_jax.training.profiling import Profile


def run(folder, steps, count):
    """Steps 1 to count; the lines that were said."""
    said = []
    profile = Profile(folder, steps, said.append)
    work = jax.jit(lambda x: x @ x)
    for step in range(1, count + 1):
        profile.before(step)
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            result = work(jnp.ones((64, 64)))
        profile.after(step, result)
    profile.close()
    return said


def test_the_steps_that_were_asked_for_are_in_the_trace(tmp_path):
    (said,) = run(tmp_path, (2, 3), 5)
    assert said.startswith("traced steps 2 to 3: ")
    (file,) = tmp_path.rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    steps = {e["args"]["step_num"] for e in events if "step_num" in e.get("args", {})}
    assert steps == {"2", "3"}


def test_a_run_that_ends_before_leaves_what_there_is(tmp_path):
    (said,) = run(tmp_path, (2, 9), 3)
    assert said.startswith("traced steps 2 to 3: ")
    assert len(list(tmp_path.rglob("*.xplane.pb"))) == 1


def test_steps_that_a_run_has_not_are_told(tmp_path):
    (said,) = run(tmp_path, (7, 9), 3)
    assert said.startswith("config.train.profile=(7, 9): the run had none")


def test_nothing_is_traced_where_nothing_is_asked_for(tmp_path):
    assert run(tmp_path / "profile", (), 3) == []
    assert not (tmp_path / "profile").exists()
