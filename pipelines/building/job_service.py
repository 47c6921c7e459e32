"""Check of a portable engine's job service, done before any input is read.

Beam itself reports a missing service late, after minutes of waiting or with a traceback.
"""

import os
import re
import shutil
import time

import grpc
from apache_beam.options.pipeline_options import JobServerOptions, PipelineOptions, PortableOptions
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc
from apache_beam.runners.portability.flink_runner import FlinkJarJobServer
from apache_beam.runners.portability.job_server import JavaJarJobServer
from apache_beam.runners.portability.spark_runner import SparkJarJobServer

from pipelines.errors import UserError

_ANSWER_S = 10.0
_IN_THIS_PROCESS = "embed"
# Engines whose job service is a jar that Beam downloads and starts.
_JARS: dict[str, type[JavaJarJobServer]] = {
    "FlinkRunner": FlinkJarJobServer,
    "SparkRunner": SparkJarJobServer,
}


class JobServiceError(UserError, ValueError):
    """A missing job service, with a message that names the option to set."""


def check(runner: str, options: PipelineOptions) -> None:
    """Check that the engine's job service answers or can be started.

    Raises:
      JobServiceError: it does not answer and cannot be started.
    """
    endpoint = options.view_as(PortableOptions).job_endpoint
    if endpoint and endpoint != _IN_THIS_PROCESS:
        _check_answer(endpoint)
    elif runner in _JARS and not endpoint:
        _check_jar(runner, options)
    elif runner == "PortableRunner" and not endpoint:
        raise JobServiceError(
            "--runner PortableRunner requires the job service of an engine: add "
            "--job_endpoint HOST:PORT"
        )


def _check_answer(endpoint: str) -> None:
    began = time.monotonic()
    with grpc.insecure_channel(endpoint) as channel:
        service = beam_job_api_pb2_grpc.JobServiceStub(channel)
        request = beam_job_api_pb2.DescribePipelineOptionsRequest()
        try:
            service.DescribePipelineOptions(request, timeout=_ANSWER_S)
        except grpc.RpcError as error:
            # A much longer wait than the timeout means that this process was suspended: retry.
            if time.monotonic() - began > 2 * _ANSWER_S:
                return _check_answer(endpoint)
            raise JobServiceError(
                f"no job service answers at --job_endpoint {endpoint} ({reason(error)}): start it, "
                "or give another endpoint"
            ) from None


def _check_jar(runner: str, options: PipelineOptions) -> None:
    given, engine = options.get_all_options(), runner.removesuffix("Runner")
    option = f"--{engine.lower()}_job_server_jar"
    jar = given[option[2:]]
    if jar and "://" not in jar and not os.path.isfile(jar):
        raise JobServiceError(f"{option} {jar!r} does not exist: give the path of a file")
    java = options.view_as(JobServerOptions).job_server_java_launcher
    if not given[f"{engine.lower()}_submit_uber_jar"] and not shutil.which(java):
        raise JobServiceError(
            f"--runner {runner} requires Java for Beam's job server, but {java!r} was not found: "
            "install Java, give its path with --job_server_java_launcher, or give a running job "
            "service with --job_endpoint HOST:PORT"
        )
    try:
        server = _JARS[runner](options)
        server.local_jar(server.path_to_jar(), options.view_as(JobServerOptions).jar_cache_dir)
    except (OSError, RuntimeError, ValueError) as error:
        why = re.split(r"\.? (?:Also failed|If no Internet)", str(error))[0]
        raise JobServiceError(
            f"the jar of Beam's job server for {engine} cannot be downloaded ({why}): download it "
            f"on another machine and give its path with {option}, or give a running job service "
            "with --job_endpoint HOST:PORT"
        ) from None


def reason(error: grpc.RpcError) -> str:
    """Return the error message of a remote call as one line of at most 200 characters."""
    details = error.details() if isinstance(error, grpc.Call) else None
    return " ".join((details or str(error)).split())[:200]
