"""Requests that Schemathesis generates from the description of the API, to a real server."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

OPERATIONS = {
    *("/api/about", "/api/search", "/api/clips/{number}", "/api/clips/{number}/film.jpg"),
    *("/api/clips/{number}/structure", "/api/clips/{number}/video", "/healthz", "/metrics"),
}


@pytest.mark.parametrize(
    "examples", [pytest.param(5, id="few"), pytest.param(60, id="many", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_answer_is_as_described_and_none_is_a_fault(two_runs, serve, mode, examples):
    address = serve(two_runs, rate=1e6, burst=1e6)
    schema = schemathesis.openapi.from_url(f"{address}openapi.json")
    seen, statuses = set(), set()
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not _takes_parameters(operation):
            continue

        @settings(
            max_examples=examples,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case):
            answer = case.call(base_url=address, timeout=60)
            statuses.add(answer.status_code)
            # A search has conditions that JSON Schema cannot express, such as a text or a clip.
            case.validate_response(answer, excluded_checks=[positive_data_acceptance])

        check()
        seen.add(operation.path)
    if mode is GenerationMode.POSITIVE:
        assert seen == OPERATIONS and 200 in statuses
    else:
        assert 422 in statuses


def _takes_parameters(operation):
    return any((operation.path_parameters, operation.query, operation.headers))
