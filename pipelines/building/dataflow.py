"""Options of jobs on Google Cloud Dataflow, completed and validated before a build starts."""

import importlib.util
from collections.abc import Mapping, Sequence

from apache_beam.options.pipeline_options import (
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    WorkerOptions,
)
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners.runner import PipelineResult

from pipelines.errors import ExitCode, UserError

RUNNER = "DataflowRunner"

# Each processor core runs one worker process, because threads of one process would block one
# another while they encode frames. A machine therefore needs this memory for each core: noun chunks
# take 0.5 GB, a clip's frames 11 MB, and a decoder of large frames the rest. The hint applies to
# the whole graph, because a step with its own hint would get its own workers.
_DEFAULTS = (
    "--number_of_worker_harness_threads=1",
    "--resource_hints=min_ram=4GB",
    "--no_save_main_session",  # Workers only run code of importable modules.
)


class JobError(UserError, ValueError):
    """A job that Dataflow cannot run, with a one-line message that says what to do."""

    exit_code = ExitCode.MISUSED


def complete(arguments: Sequence[str]) -> list[str]:
    """Return Beam's arguments for a job, with this project's defaults for missing ones.

    Raises:
      JobError: an argument is missing or invalid.
    """
    if importlib.util.find_spec("google.cloud.dataflow") is None:
        raise JobError(
            f"--runner {RUNNER} requires Google's client library: "
            "pip install -c constraints.txt '.[pipelines,dataflow]'"
        )
    options = PipelineOptions([*arguments])
    cloud = options.view_as(GoogleCloudOptions)
    wanted = {"project": "PROJECT", "region": "REGION", "temp_location": "gs://BUCKET/FOLDER"}
    if missing := [f"--{name} {what}" for name, what in wanted.items() if not getattr(cloud, name)]:
        raise JobError(f"--runner {RUNNER} requires more options: add {', '.join(missing)}")
    validator = PipelineOptionsValidator(options, None)
    wrong = validator.validate_gcs_path(cloud, "temp_location")
    if wrong := wrong + validator.validate_cloud_options(cloud):
        raise JobError(f"--runner {RUNNER}: {wrong[0]}")
    if not (
        options.view_as(WorkerOptions).sdk_container_image
        or options.view_as(SetupOptions).setup_file
    ):
        raise JobError(
            f"the workers of --runner {RUNNER} need this program: give --sdk_container_image with "
            "an image of deploy/dataflow/Dockerfile, or --setup_file deploy/dataflow/setup.py"
        )
    # A template only describes a job: there is nothing to wait for.
    handed_over = ["--no_wait_until_finish"] if cloud.template_location else []
    return [*_DEFAULTS, *arguments, *handed_over]


def refuse_local(paths: Mapping[str, Sequence[str]]) -> None:
    """Raise an error for local files and S3 objects, which Google's workers cannot read.

    Args:
      paths: paths by option.

    Raises:
      JobError: a path is not gs://. The message names up to three of them.

    >>> refuse_local({"--videos": ["gs://mine/videos"]})
    """
    local = [
        f"{option} {path}"
        for option, named in paths.items()
        for path in named
        if not path.startswith("gs://")
    ]
    if local:
        raise JobError(
            f"the workers of --runner {RUNNER} read only gs:// paths, not {', '.join(local[:3])}: "
            "copy the files to a bucket (gcloud storage cp) and give its paths"
        )


def page(result: PipelineResult, options: PipelineOptions) -> str | None:
    """Return the URL of a job's page, or None if it is a template or not a Dataflow job."""
    from apache_beam.runners.dataflow.dataflow_runner import DataflowPipelineResult

    if not isinstance(result, DataflowPipelineResult) or not result.has_job:
        return None
    cloud = options.view_as(GoogleCloudOptions)
    job = f"{cloud.region}/{result.job_id()}"
    return f"https://console.cloud.google.com/dataflow/jobs/{job}?project={cloud.project}"
