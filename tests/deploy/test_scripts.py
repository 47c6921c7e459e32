"""The launch scripts with stand-ins for cloud and cluster."""

import pathlib
import subprocess

import pytest
import yaml

DEPLOY = pathlib.Path(__file__).parents[2] / "deploy"
PRETRAIN = ("--preset", "paper", "--out", "gs://b/a run", "--set", "video.grouping_after=6,9,12")
VALUES = {
    "tpu": ("ACCELERATOR=tpu-v5-lite-podslice", "TOPOLOGY=8x8", "CHIPS=4"),
    "gpu": ("GPUS=8",),
}


def run(script, *arguments, **options):
    return subprocess.run(
        [DEPLOY / script, *arguments], capture_output=True, text=True, timeout=60, **options
    )


def test_a_dry_run_prints_the_commands_of_a_slice():
    done = run(
        *("tpu/train.sh", "train", "vcc", "--zone", "us-west4-a", "--project", "p", "--spot"),
        *("--accelerator", "v5litepod-64", "--image", "r/i:1", "--dry-run", "--", *PRETRAIN),
    )
    assert done.returncode == 0, done.stderr
    where = ["--zone", "us-west4-a", "--project", "p"]
    asked, started, deleted = (words(line) for line in done.stdout.splitlines())
    assert asked[:6] == ["gcloud", "compute", "tpus", "queued-resources", "create", "vcc"]
    assert asked[6:10] == where
    assert {"--spot", "v5litepod-64", "v2-alpha-tpuv5-lite"} < set(asked)
    assert started[3:6] == ["tpu-vm", "ssh", "vcc"]
    assert started[-2] == "--command"
    container = words(started[-1].splitlines()[1].partition(" >")[0])
    at = container.index("r/i:1")
    assert container[at + 1 :] == ["pretrain", "--coordinator", "auto", *PRETRAIN]
    assert deleted[3:] == ["queued-resources", "delete", "vcc", *where, "--force", "--quiet"]


def words(line):
    """Return a line's words as bash splits them."""
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, check=True
    )
    return done.stdout.split("\0")[:-1]


@pytest.mark.parametrize(
    ("script", "arguments", "told"),
    [
        ("tpu/train.sh", ["train"], "the command or the name is missing"),
        ("tpu/train.sh", ["train", "vcc"], "--zone is required"),
        ("tpu/train.sh", ["train", "-vcc", "--zone", "z"], "the name -vcc is invalid"),
        ("tpu/train.sh", ["train", "vcc", "--zones", "z"], "unknown option --zones"),
        ("tpu/train.sh", ["train", "vcc", "--zone"], "--zone requires a value"),
        ("tpu/train.sh", ["train", "vcc", "--zone", "z"], "train requires --accelerator"),
        ("tpu/train.sh", ["trian", "vcc", "--zone", "z"], "unknown command trian"),
        ("jobset.sh", ["render", "nowhere.yaml"], "nowhere.yaml cannot be read"),
        ("jobset.sh", ["render", DEPLOY / "gpu/jobset.yaml", "NAME=a"], "requires a value"),
        ("jobset.sh", ["render", DEPLOY / "gpu/jobset.yaml", "CHIPS=4"], "has no @CHIPS@"),
        ("jobset.sh", ["render", DEPLOY / "gpu/jobset.yaml", "NAME=a: b"], "is not NAME=VALUE"),
        ("gpu/train_slurm.sh", [], "the options of pretrain are missing"),
        ("gpu/train_slurm.sh", ["--restarts", "-1"], "--restarts requires an integer, not '-1'"),
    ],
)
def test_wrong_usage_is_reported(script, arguments, told):
    done = run(script, *arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("script", ["tpu/train.sh", "gpu/train_slurm.sh", "jobset.sh"])
def test_scripts_have_help(script):
    done = run(script, "--help")
    assert done.returncode == 0
    assert "example:" in done.stdout


@pytest.mark.parametrize("kind", VALUES)
def test_a_jobset_restarts_only_on_preemption(kind):
    common = ("NAME=vcc", "IMAGE=r/i@sha256:1", "HOSTS=16", "RESTARTS=50")
    template = DEPLOY / kind / "jobset.yaml"
    done = run("jobset.sh", "render", template, *common, *VALUES[kind], "--", *PRETRAIN, 'a"\\b')
    assert done.returncode == 0, done.stderr
    spec = yaml.safe_load(done.stdout)["spec"]
    (workers,) = spec["replicatedJobs"]
    job = workers["template"]["spec"]
    assert job["parallelism"] == job["completions"] == 16
    (rule,) = job["podFailurePolicy"]["rules"]
    # 1 means failed, 2 misused. 75 (stopped and saved) restarts the run.
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [1, 2])
    assert spec["failurePolicy"]["maxRestarts"] == 50
    assert spec["failurePolicy"]["rules"][0]["onJobFailureReasons"] == ["PodFailurePolicy"]
    (container,) = job["template"]["spec"]["containers"]
    assert container["args"][0] == "pretrain"
    assert tuple(container["args"][-len(PRETRAIN) - 1 :]) == (*PRETRAIN, 'a"\\b')


# A stand-in for srun (SchedMD/slurm, src/srun/launch.c): --kill-on-bad-exit silently kills
# the other tasks, and a signal takes precedence over any status.
SRUN = r"""#!/usr/bin/env bash
printf '%s\n' "$@" >"$HERE/srun.txt"
echo 'a worker told something'
echo 'a worker told why: Exited with exit code 2' >&2
task=0 exited=0 signalled=0
for status in $STATUSES; do
  if ((status > 128)); then
    ((signalled >= status)) || signalled=$status
  elif ((status)); then
    echo "srun: error: node$task: task $task: Exited with exit code $status" >&2
    ((exited >= status)) || exited=$status
  fi
  ((++task))
done
exit $((signalled ? signalled : exited))
"""


@pytest.fixture
def slurm(tmp_path):
    """Run train_slurm.sh with tasks that end with `statuses`; return the process and requests."""
    for name, text in (
        ("srun", SRUN),
        ("scontrol", '#!/usr/bin/env bash\nprintf "%s " "$@" >"$HERE/scontrol.txt"\n'),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def run_job(statuses, *arguments, restarted=None):
        environment = {
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "HERE": str(tmp_path),
            "SLURM_JOB_ID": "7",
            "STATUSES": statuses,
        }
        if restarted is not None:
            environment["SLURM_RESTART_COUNT"] = str(restarted)
        done = run("gpu/train_slurm.sh", *arguments, *PRETRAIN, env=environment)
        queued = tmp_path / "scontrol.txt"
        return done, queued.read_text() if queued.exists() else ""

    return run_job


@pytest.mark.parametrize(
    ("statuses", "queued_again", "ends"),
    [
        ("0 0", False, 0),
        ("75 75", True, 0),
        ("0 137", True, 0),
        ("75 143 134", True, 0),
        ("1 1", False, 1),
        ("137 1 137", False, 1),  # srun's own status is 137.
        ("75 2 75", False, 2),  # Here it is 75.
        ("137 127", False, 127),
    ],
)
def test_slurm_requeues_stopped_runs_but_not_failed_ones(
    slurm, tmp_path, statuses, queued_again, ends
):
    done, queued = slurm(statuses)
    assert done.returncode == ends
    assert queued == ("requeue 7 " if queued_again else "")
    assert done.stdout == "a worker told something\n"
    assert done.stderr.startswith("a worker told why")
    asked = (tmp_path / "srun.txt").read_text().splitlines()
    assert asked[1:5] == ["svilm-train", "pretrain", "--coordinator", "auto"]
    assert tuple(asked[5:]) == PRETRAIN


@pytest.mark.parametrize(
    ("arguments", "restarted", "queued_again"),
    [
        ([], 49, True),
        ([], 50, False),
        (["--restarts", "2"], 1, True),
        (["--restarts", "2"], 2, False),
        (["--restarts", "0"], None, False),
    ],
)
def test_slurm_limits_restarts(slurm, tmp_path, arguments, restarted, queued_again):
    done, queued = slurm("75 137", *arguments, restarted=restarted)
    assert bool(queued) == queued_again
    assert done.returncode == (0 if queued_again else 137)
    assert queued_again or "restarts: not requeued" in done.stderr
    assert tuple((tmp_path / "srun.txt").read_text().splitlines()[5:]) == PRETRAIN
