import pytest

from reinforcement_learning.failed_groups import FailedGroups, GroupBook, RunEnded


def book(rollouts=8, **settings):
    return GroupBook(FailedGroups(**settings), rollouts)


def test_a_group_fails_when_it_has_fewer_survivors_than_set_and_its_losses_are_counted_by_kind():
    counted = book()
    counted.drawn(["a", "b", "c", "d"])
    counted.settle("a", 8, [])
    counted.settle("b", 7, ["ValueError: no digits in 'x'"])
    counted.settle("c", 1, ["ValueError: again"] * 3 + ["EpisodeFailed: q3: judge away"] * 4)
    metrics = counted.metrics(trained=3)
    assert metrics["episode/lost"] == 8
    assert metrics["episode/failed_frac"] == 8 / 32
    assert metrics["episode/dropped_groups"] == 1
    assert metrics["episode/evicted_frac"] == 1 / 4
    assert metrics["episode/lost_ValueError_frac"] == 4 / 32
    assert metrics["episode/lost_EpisodeFailed_frac"] == 4 / 32
    counted.begin_step()
    assert counted.metrics(trained=3)["episode/failed_frac"] == 0


def test_a_loss_whose_worker_told_no_reason_is_counted_all_the_same():
    counted = book()
    counted.settle("a", 5, ["ValueError: one"])
    assert counted.metrics(trained=3)["episode/lost_Unknown_frac"] == 2 / 8


def test_failed_groups_in_a_row_end_the_run_with_the_commonest_reasons_in_one_line():
    counted = book(max_in_a_row=3)
    for number in range(3):
        counted.check()
        counted.settle(f"g{number}", 0, ["OSError: disk\n  full"] * 6 + ["ValueError: bad"] * 2)
    with pytest.raises(RunEnded) as error:
        counted.check()
    text = str(error.value)
    assert "3 groups in a row" in text
    assert "24 of 24" in text
    assert "18 x OSError: disk full; 6 x ValueError: bad" in text
    assert "\n" not in text


def test_the_row_goes_over_the_end_of_a_step_and_a_good_group_ends_it():
    counted = book(max_in_a_row=3)
    for name, survivors in (("a", 8), ("b", 0), ("c", 0)):
        counted.settle(name, survivors, [])
    counted.begin_step()
    counted.settle("d", 0, [])
    with pytest.raises(RunEnded):
        counted.check()
    counted = book(max_in_a_row=3)
    for name, survivors in (("a", 0), ("b", 0), ("c", 8), ("d", 0), ("e", 0)):
        counted.settle(name, survivors, [])
    counted.begin_step()
    counted.check()


def test_groups_that_fail_quickly_are_no_row_while_those_between_them_are_still_being_made():
    counted = book(max_in_a_row=3)
    counted.drawn(f"g{number}" for number in range(12))
    for number in range(0, 12, 2):
        counted.settle(f"g{number}", 0, ["ValueError: bad row"])
    counted.check()


def test_with_one_rollout_a_group_one_survivor_is_enough():
    assert book(rollouts=1).min_survivors == 1
