"""The words for a success rate."""

from vla.base.success import format_success, wilson_interval


def test_a_rate_comes_with_its_interval() -> None:
    low, high = wilson_interval(3, 4)
    assert format_success(75.0, (100 * low, 100 * high)) == "75.0 % (30.1 to 95.4)"
    assert format_success(75.0, (100 * low, 100 * high), digits=0) == "75 % (30 to 95)"


def test_what_was_not_measured_is_said_so() -> None:
    assert format_success(None, None) == "not measured"
    assert format_success(None, None, missing="-") == "-"


def test_the_interval_is_exact_where_all_fail_or_succeed() -> None:
    assert wilson_interval(0, 10)[0] == 0.0 and wilson_interval(10, 10)[1] == 1.0
    assert 0.0 < wilson_interval(0, 10)[1] < wilson_interval(10, 10)[0] < 1.0
