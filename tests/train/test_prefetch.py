import threading

import pytest

from train import data


def test_prefetch_gives_the_batches_in_order_and_ends_its_thread():
    with data.Prefetch(lambda step: step * step, 3) as ahead:
        assert [ahead.get(step) for step in range(3, 50)] == [step * step for step in range(3, 50)]
        assert any(thread.name.startswith("batches") for thread in threading.enumerate())
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())


def test_prefetch_works_ahead_by_its_depth():
    made, free = [], threading.Event()
    ahead = data.Prefetch(lambda step: made.append(step) or (step == 4 and free.set()), 0, depth=3)
    for step in range(2):
        ahead.get(step)
    assert free.wait(10)
    ahead.close()
    assert made == [0, 1, 2, 3, 4]


def test_prefetch_raises_what_a_batch_raised_at_its_step_and_can_try_again():
    broken = {5}

    def make(step):
        if step in broken:
            raise OSError(f"batch {step}")
        return step

    ahead = data.Prefetch(make, 3)
    assert [ahead.get(3), ahead.get(4)] == [3, 4]
    with pytest.raises(OSError, match="batch 5"):
        ahead.get(5)
    assert ahead.get(6) == 6
    broken.clear()
    assert [ahead.get(5), ahead.get(6)] == [5, 6]
    ahead.close()


def test_prefetch_starts_anew_at_another_step():
    ahead = data.Prefetch(lambda step: step, 0)
    assert [ahead.get(step) for step in (0, 1, 2, 9, 10, 1, 2)] == [0, 1, 2, 9, 10, 1, 2]
    ahead.close()
