"""Requests that Schemathesis makes of the server's own description, those that fit it and those that do not (nightly: 1,000 of each)."""

import time

import pytest

from flaxgen.serve import openapi
from tests import wires

pytestmark = pytest.mark.browser
schemathesis = pytest.importorskip("schemathesis", reason="wants the extra browser")

from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402

CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")


def check_all(served, mode: str, count: int) -> None:
    """`count` requests in all, which fit the description (positive) or not (negative)."""
    schema = schemathesis.openapi.from_dict(openapi.document(needs_key=True))
    operations = [found.ok() for found in schema.get_all_operations()]
    if mode == "negative":  # of which a request without a body has none
        operations = [operation for operation in operations if operation.method == "post"]
    checks = [check for check in schemathesis.checks.CHECKS.get_all() if check.__name__ in CHECKS]
    assert len(checks) == len(CHECKS)
    made = 0

    def run(operation) -> None:
        @settings(
            max_examples=-(-count // len(operations)),
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=HealthCheck,
            phases=[Phase.generate],
        )
        @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
        def one(case):
            nonlocal made
            made += 1
            start = time.monotonic()
            answer = case.call(base_url=served.url, headers={"Authorization": f"Bearer {served.settings.key}"}, timeout=30)
            seconds = time.monotonic() - start
            assert seconds < 2, f"{seconds:.1f} s: {case.as_curl_command()[:2000]}"
            assert not wires.LEAKS.search(answer.content)
            if answer.status_code >= 400 and case.path not in ("/health", "/ready"):
                assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
            case.validate_response(answer, checks=checks)

        one()

    for operation in operations:
        run(operation)
    assert wires.works(served) and made > count // 2


@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_what_fits_the_description_and_what_does_not_is_answered_as_it_says(served, mode):
    check_all(served, mode, 120)


@pytest.mark.nightly
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_a_thousand_requests_of_each_kind(served, mode):
    check_all(served, mode, 1000)
