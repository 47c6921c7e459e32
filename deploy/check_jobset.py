"""A strict check of a JobSet on standard input, whose jobs must fit Kubernetes' schema of a Job."""

import sys

import kubernetes_validate
import yaml

# Kubernetes has a schema of Jobs. JobSet is an extension, with only these fields outside its jobs.
_SPEC = {"failurePolicy", "replicatedJobs"}
_VERSION = "1.34"


def main() -> None:
    """Check the JobSet, and exit with a message at the first error."""
    jobset = yaml.safe_load(sys.stdin)
    if (jobset["apiVersion"], jobset["kind"]) != ("jobset.x-k8s.io/v1alpha2", "JobSet"):
        sys.exit(f"check_jobset: error: not a JobSet: {jobset['apiVersion']} {jobset['kind']}")
    if unknown := set(jobset["spec"]) - _SPEC:
        sys.exit(f"check_jobset: error: spec has unknown fields {sorted(unknown)}")
    for replicated in jobset["spec"]["replicatedJobs"]:
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": replicated["name"]},
            "spec": replicated["template"]["spec"],
        }
        try:
            kubernetes_validate.validate(job, _VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            where = ".".join(map(str, error.path))
            sys.exit(f"check_jobset: error: job {replicated['name']}: {where}: {error.message}")


if __name__ == "__main__":
    main()
