"""What can be told of launch/ without a cloud.

The scripts run with stand-ins for `python`, `gcloud`, `srun` and `scontrol`, which note
what they are called with and end as a test says.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from refinenet_jax import main, preemption

LAUNCH = Path(__file__).parent.parent / "launch"
SCRIPTS = ("local_gpu.sh", "tpu_vm.sh", "tpu_pod.sh", "slurm.sbatch")
PROGRAM = ["-m", "refinenet_jax.main"]
ARGUMENTS = ["--config=voc", "--workdir=a b", "--config.data.scale_range=(0.5,2.0)"]


class Stand:
    """A folder with stand-ins for programs, and what they were called with."""

    def __init__(self, folder):
        self.folder = folder
        self.notes = folder / "notes"

    def put(self, name, lines="exit 0"):
        """A stand-in; `lines` of sh come after the note."""
        path = self.folder / name
        path.write_text(
            f'#!/bin/sh\nprintf "%s " "{name} JAX_PLATFORMS=$JAX_PLATFORMS" '
            f'>>{self.notes}.$$\nprintf "%s\\n" "$@" >>{self.notes}.$$\n{lines}\n'
        )
        path.chmod(0o755)

    def start(self, script, *arguments, **environment):
        return subprocess.Popen(
            ["bash", LAUNCH / script, *arguments],
            env={"PATH": f"{self.folder}:/usr/bin:/bin", "HOME": "/", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, script, *arguments, **environment):
        process = self.start(script, *arguments, **environment)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def calls(self, name):
        """What each call of a stand-in was given: its platforms, then arguments."""
        texts = [path.read_text() for path in self.folder.glob("notes.*")]
        return [text.split(" ", 1)[1] for text in texts if text.startswith(f"{name} ")]


@pytest.fixture
def stand(tmp_path):
    return Stand(tmp_path)


@pytest.mark.parametrize(
    ("script", "platforms"),
    [("local_gpu.sh", "cuda"), ("tpu_vm.sh", "tpu,cpu")],
)
@pytest.mark.parametrize("code", [0, 2, preemption.EXIT_CODE])
def test_one_machine_runs_the_program_and_ends_with_its_code(
    stand, script, platforms, code
):
    stand.put("python", f"exit {code}")
    assert stand.run(script, *ARGUMENTS)[0] == code
    (call,) = stand.calls("python")
    expected = "\n".join([*PROGRAM, *ARGUMENTS, ""])
    assert call == f"JAX_PLATFORMS={platforms} {expected}"


@pytest.mark.parametrize(
    ("code", "requeued"), [(0, False), (1, False), (2, False), (75, True)]
)
def test_slurm_queues_the_job_again_where_it_can_go_on(stand, code, requeued):
    stand.put("srun", f"exit {code}")
    stand.put("scontrol")
    found, _, err = stand.run("slurm.sbatch", *ARGUMENTS, SLURM_JOB_ID="7")
    assert found == code, err
    (call,) = stand.calls("srun")
    assert call.endswith("\n".join(["python", *PROGRAM, *ARGUMENTS, ""]))
    assert call.startswith("JAX_PLATFORMS=cuda ")
    assert [c.split()[1:] for c in stand.calls("scontrol")] == [
        ["requeue", "7"]
    ] * requeued


def test_slurm_is_told_what_the_pages_say():
    text = (LAUNCH / "slurm.sbatch").read_text()
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", text, re.MULTILINE))
    assert options["signal"] == "TERM@300"
    assert {"requeue", "open-mode"} <= set(options)


# Ends as $CODES says, one word for each start of the program: all hosts alike, but for
# the second, which ends as $SECOND says where it is set.
GCLOUD = """
case "$*" in
  *list-instances*) printf 'host-0\\nhost-1\\n'; exit 0 ;;
  *wait-until*|*pkill*) exit 0 ;;
esac
host=$(echo "$*" | grep -o 'host-[0-9]' || echo all)
echo x >>"$TMP/starts-$host"
count=$(wc -l <"$TMP/starts-$host")
case "$SECOND$host" in
  ?*host-1) exit "$SECOND" ;;
esac
code=$(echo "$CODES" | cut -d' ' -f"$count")
[ "$code" != wait ] || exec sleep 20
exit "$code"
"""


@pytest.fixture
def cloud(stand, tmp_path):
    """Runs tpu_pod.sh on a slice of two hosts; gives its exit code and stderr."""
    stand.put("gcloud", GCLOUD)

    def run(codes, **environment):
        environment = {"GROUP": "slice", "ZONE": "zone", "PAUSE": "0", **environment}
        code, _, err = stand.run(
            "tpu_pod.sh", *ARGUMENTS, TMP=str(tmp_path), CODES=codes, **environment
        )
        return code, err

    return run


def starts(stand):
    """The commands that hosts were given."""
    calls = [call.splitlines() for call in stand.calls("gcloud")]
    return [
        next(line for line in call if line.startswith("--command=")).partition("=")[2]
        for call in calls
        if any("tpu_vm.sh" in line for line in call)
    ]


def test_all_hosts_of_a_slice_get_the_command(cloud, stand):
    code, err = cloud("0")
    assert code == 0, err
    commands = starts(stand)
    assert len(commands) == 2
    for command in commands:
        assert shlex.split(command) == [
            *("cd", "refinenet_jax", "&&", "launch/tpu_vm.sh"),
            *ARGUMENTS,
        ]


def test_a_slice_goes_on_after_hosts_were_taken_away(cloud, stand):
    code, err = cloud("75 255 0")  # stopped, then cut off from ssh
    assert code == 0, err
    assert len(starts(stand)) == 6
    assert "ended with 75 and start again" in err
    waits = [call for call in stand.calls("gcloud") if "wait-until" in call]
    assert len(waits) == 3


@pytest.mark.parametrize("fault", ["1", "2"])
def test_a_slice_does_not_repeat_a_fault(cloud, stand, fault):
    code, _ = cloud("75", SECOND=fault)
    assert code == int(fault)
    assert len(starts(stand)) == 2


def test_the_older_way_reaches_all_workers_in_one_call(cloud, stand):
    code, err = cloud("75 0", GROUP="", TPU="node")
    assert code == 0, err
    assert len(starts(stand)) == 2
    (first, *_) = stand.calls("gcloud")
    assert "tpu-vm\nssh\nnode" in first
    assert "--worker=all" in first


@pytest.mark.parametrize("slice_", [{"GROUP": ""}, {"TPU": "node"}, {"ZONE": ""}])
def test_a_slice_must_be_named(cloud, stand, slice_):
    code, err = cloud("0", **slice_)
    assert code in (1, 2)
    assert re.search("GROUP=|ZONE=", err)
    assert not stand.calls("gcloud")


def test_ending_the_script_ends_the_program_on_all_hosts(stand, tmp_path):
    stand.put("gcloud", GCLOUD)
    process = stand.start(
        "tpu_pod.sh",
        *ARGUMENTS,
        TMP=str(tmp_path),
        CODES="wait",
        GROUP="slice",
        ZONE="zone",
    )
    while len(list(tmp_path.glob("starts-*"))) < 2 and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)
    assert process.returncode == preemption.EXIT_CODE
    killed = [call for call in stand.calls("gcloud") if "pkill -TERM" in call]
    assert len(killed) == 2


@pytest.fixture(params=["tpu", "gpu"])
def jobset(request):
    documents = yaml.safe_load_all((LAUNCH / "gke_jobset.yaml").read_text())
    (found,) = [
        d for d in documents if d["metadata"]["labels"]["form"] == request.param
    ]
    return found


def test_a_jobset_restarts_as_the_exit_codes_ask(jobset):
    assert jobset["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    policy = jobset["spec"]["failurePolicy"]
    assert policy["maxRestarts"] > 0
    # A job that failed by its pod failure policy, that is by exit code 2.
    assert policy["rules"] == [
        {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    ]
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    assert job["backoffLimit"] == 0
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"]["values"] == [2]
    assert job["parallelism"] == job["completions"]
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    (annotation,) = jobset["metadata"]["annotations"]
    assert annotation == "alpha.jobset.sigs.k8s.io/exclusive-topology"


def test_the_jobs_of_a_jobset_are_jobs_of_kubernetes(jobset):
    """Every field is one of the API's, with a value of its kind."""
    client = pytest.importorskip("kubernetes.client", reason="kubernetes")
    (replicated,) = jobset["spec"]["replicatedJobs"]
    check_fields(client, replicated["template"], "V1JobTemplateSpec")


def check_fields(client, value, kind):
    """Raises where a value is not what the client's model `kind` says.

    Releases of the client write list[X] or List[X], dict(str, X) or Dict[str, X].
    """
    if match := re.fullmatch(r"[Ll]ist\[(.*)\]", kind):
        assert isinstance(value, list)
        for item in value:
            check_fields(client, item, match[1])
    elif match := re.fullmatch(r"[Dd]ict[\[(]str, (.*)[\])]", kind):
        for item in value.values():
            check_fields(client, item, match[1])
    elif hasattr(client, kind):
        model = getattr(client, kind)
        fields = {name: field for field, name in model.attribute_map.items()}
        for name, item in value.items():
            assert name in fields, f"{kind} has no {name}"
            check_fields(client, item, model.openapi_types[fields[name]])
        # Some releases ask for both conditions of a rule, of which the API takes one.
        if kind != "V1PodFailurePolicyRule":
            model(**{fields[name]: item for name, item in value.items()})
    else:
        assert isinstance(value, {"str": str | int, "int": int, "bool": bool}[kind])


def test_pods_of_a_jobset_run_the_program(jobset, tmp_path):
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    flags = dict(argument.split("=", 1) for argument in container["args"])
    assert flags["--workdir"].startswith("gs://")
    if jobset["metadata"]["labels"]["form"] == "gpu":
        name, job_name = jobset["metadata"]["name"], replicated["name"]
        address = f"{name}-{job_name}-0-0.{name}:"
        assert flags["--coordinator_address"].startswith(address)
        assert int(flags["--num_processes"]) == job["parallelism"]
        assert flags["--process_id"] == "$(JOB_COMPLETION_INDEX)"
    given = [a.replace("$(JOB_COMPLETION_INDEX)", "0") for a in container["args"]]
    check_arguments(given, tmp_path)


def check_arguments(arguments, folder):
    """Has the program read a command line, with a folder for a bucket."""
    here = [
        re.sub("gs://bucket", str(folder), argument, flags=re.IGNORECASE)
        for argument in arguments
    ]
    main.main(["refinenet", "--mode=show", *here])


@pytest.mark.parametrize("nodes", [1, 2])
def test_skypilot_runs_the_program_on_each_node(stand, nodes, tmp_path):
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    assert task["resources"]["use_spot"]
    codes = task["resources"]["job_recovery"]["recover_on_exit_codes"]
    assert codes == [preemption.EXIT_CODE]
    assert set(task) <= {"name", "resources", "workdir", "envs", "setup", "run"}
    home = tmp_path / "home"
    (home / "venv/bin").mkdir(parents=True)
    stand.put("python")
    (stand.folder / "python").rename(home / "venv/bin/python")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", task["run"]],
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(home),
            "BUCKET": "gs://bucket",
            "CONFIG": "voc",
            "SKYPILOT_NUM_NODES": str(nodes),
            "SKYPILOT_NODE_RANK": str(nodes - 1),
            "SKYPILOT_NODE_IPS": "\n".join(f"10.0.0.{i}" for i in range(nodes)),
        },
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (call,) = stand.calls("python")
    arguments = call.split()[1 + len(PROGRAM) :]
    assert "--workdir=gs://bucket/voc" in arguments
    together = [a for a in arguments if a.startswith(("--coord", "--num", "--process"))]
    assert together == [
        "--coordinator_address=10.0.0.0:8482",
        "--num_processes=2",
        "--process_id=1",
    ] * (nodes == 2)
    if nodes == 2:
        check_arguments(arguments, tmp_path)


def tool(name):
    """A program that the extra `test` brings."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        pytest.skip(name)
    return path


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_has_nothing_to_say(script):
    done = subprocess.run(
        [tool("shellcheck"), "--shell=bash", LAUNCH / script],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_scripts_may_be_started():
    for script in SCRIPTS:
        assert os.access(LAUNCH / script, os.X_OK), script


def test_hadolint_has_nothing_to_say():
    done = subprocess.run(
        [tool("hadolint"), "--no-color", LAUNCH / "Dockerfile"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert not done.stdout


def test_the_image_takes_an_extra_that_there_is():
    text = (LAUNCH / "Dockerfile").read_text()
    setup = (LAUNCH.parent / "setup.cfg").read_text()
    for extra in ("cuda12", "cuda13", "tpu", "gcs"):
        assert extra in text
        assert re.search(rf"^{extra} =$", setup, re.MULTILINE)
    assert text.endswith(
        'ENTRYPOINT ["python", "-m", "refinenet_jax.main"]\nCMD ["--help"]\n'
    )
