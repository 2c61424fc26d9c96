"""The attack suite judges what it sees: an attack that succeeds must not pass."""

import pytest

from code_sandbox.attacks import suite
from code_sandbox.attacks.suite import Attempt
from code_sandbox.wire import CellError, ExecuteResult


def failed(name):
    return ExecuteResult(status="error", error=CellError(name=name, message="", traceback=""))


@pytest.mark.parametrize(
    ("result", "wrong"),
    [
        (ExecuteResult(status="ok", stdout="refused\n"), ""),
        (ExecuteResult(status="ok", stdout="so far\nBREACH 5 processes\n"), "BREACH 5 processes"),
        (ExecuteResult(status="timeout"), "reported as timeout, expected ok or MemoryError: "),
        (failed("MemoryError"), ""),
        (failed("ValueError"), "reported as ValueError, expected ok or MemoryError: "),
    ],
)
def test_a_breach_and_a_wrong_report_are_seen(result, wrong):
    attempt = Attempt("x", "", reported=("ok", "MemoryError"))
    assert suite._judge(attempt, result, suite.report(result), late_s=0) == wrong


def test_an_answer_that_comes_too_late_is_seen():
    assert suite._judge(Attempt("x", "", late_s=1), ExecuteResult(status="ok"), "ok", late_s=2.04) == "2.0 s late"


def test_attacks_are_numbered_without_a_gap_and_all_compile():
    names = suite.attack_names()
    assert [int(name[1:3]) for name in names] == list(range(1, len(names) + 1))
    for name in names:
        module = suite.load(name)
        assert module.__doc__.startswith(f"{int(name[1:3])}. ")
        assert hasattr(module, "attempts") or module.ATTEMPTS
        for attempt in getattr(module, "ATTEMPTS", ()):
            compile(attempt.code, attempt.name, "exec")
    with pytest.raises(LookupError, match="no attack 'a99'; there are a01_fork_bomb"):
        suite.load("a99")
