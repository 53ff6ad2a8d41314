import pytest
from obtain import IndexUnreachable, obtain_suite
from run import Reason, compare, read_reasons, run_suites


@pytest.fixture(scope="module")
def suite():
    try:
        return obtain_suite()
    except IndexUnreachable as error:
        pytest.skip(str(error))


def test_every_common_test_of_transformers_passes_or_cannot_apply(suite):
    comparison = compare(run_suites(suite), read_reasons())
    assert not comparison.faults, "\n".join(comparison.faults)
    assert len(comparison.passed) > 200


OUTCOMES = {
    "A::one": {"outcome": "passed", "message": ""},
    "A::two": {"outcome": "skipped", "message": "no device"},
    "B::two": {"outcome": "failed", "message": "1 != 2\nmore"},
}


@pytest.mark.parametrize(
    ("patterns", "faults"),
    [
        (["*::two"], []),
        (["A::two"], ["B::two failed: 1 != 2"]),
        (["*::two", "A::one"], ["A::one is listed as not applicable, but it passed: take it off the list"]),
        (["*::two", "C::*"], ["no test matches C::*: take it off the list"]),
        (["*::two", "A::t*"], ["A::two is listed 2 times: *::two, A::t*"]),
    ],
)
def test_the_comparison_finds_what_the_list_does_not_say(patterns, faults):
    assert compare(OUTCOMES, [Reason("a reason", patterns)]).faults == faults


def test_what_needs_hardware_may_pass_where_it_is():
    comparison = compare(OUTCOMES, [Reason("needs hardware", ["*"], hardware=True)])
    assert not comparison.faults and comparison.passed == ["A::one"]


def test_every_reason_says_something_of_its_own():
    reasons = [reason.reason for reason in read_reasons()]
    assert len(set(reasons)) == len(reasons)
    assert not [reason for reason in reasons if len(reason) < 20 or "yet" in reason]
