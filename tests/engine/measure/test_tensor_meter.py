"""Live tensor bytes are those of the storages that exist, each under its own kind."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import conv2d

from runner.contract.vocabulary import Memory, Meter
from runner.engine.measure.allocator import AllocatorMeter
from runner.engine.measure.dispatch import DispatchMeter
from runner.engine.measure.library import BuildError, build
from runner.engine.measure.tensors import TensorMeter

Made = Callable[[], TensorMeter]

KILO = 1024  # floats in a block: 4096 bytes


@pytest.fixture(params=[Meter.ALLOCATOR, Meter.DISPATCH], scope="module")
def made(request: pytest.FixtureRequest) -> Made:
    """Makes meters of either kind; both must tell the same."""
    if request.param is Meter.DISPATCH:
        return DispatchMeter
    try:
        library = build()
    except BuildError as error:
        pytest.skip(str(error))
    return lambda: AllocatorMeter(library)


def test_a_tensor_counts_while_it_lives(made: Made) -> None:
    with made() as meter:
        block = torch.zeros(KILO)
        assert meter.total.live == 4096
        del block
        assert meter.total.live == 0
    assert meter.total.peak == 4096


def test_the_peak_is_the_most_that_lived_at_once(made: Made) -> None:
    with made() as meter:
        for _ in range(5):
            block = torch.zeros(KILO)
            del block
        pair = [torch.zeros(KILO), torch.zeros(KILO)]
        del pair
    assert meter.total.peak == 2 * 4096


def test_kinds_at_the_peak_of_their_sum_may_lie_below_their_own_peaks(made: Made) -> None:
    with made() as meter:
        with meter.kind(Memory.A):
            early = torch.zeros(3 * KILO)
            del early
            late = [torch.zeros(KILO)]
        with meter.kind(Memory.ALPHA):
            late += [torch.zeros(KILO) for _ in range(4)]
        del late
    assert meter.peak_by_kind()[Memory.A] == 3 * 4096
    at_peak = meter.at_peak_by_kind()
    assert (at_peak[Memory.A], at_peak[Memory.ALPHA]) == (4096, 4 * 4096)


@pytest.mark.parametrize(
    "touch",
    [
        lambda x: x.view(2, -1),
        lambda x: x[1:],
        lambda x: x.reshape(4, -1).t(),
        lambda x: x.add_(1),
        lambda x: x.detach(),
        lambda x: x.expand(8, -1),
        lambda x: x.split(256),
        lambda x: torch.mul(x, 2, out=x),
    ],
    ids=["view", "slice", "transpose", "in place", "detach", "expand", "split", "out"],
)
def test_views_and_in_place_operators_add_nothing(
    made: Made,
    touch: Callable[[torch.Tensor], object],
) -> None:
    with made() as meter:
        block = torch.zeros(KILO)
        result = touch(block)
        assert meter.total.live == 4096
        del block, result
        assert meter.total.live == 0


def test_a_view_keeps_its_whole_storage_alive(made: Made) -> None:
    with made() as meter:
        element = torch.zeros(KILO)[0]
        assert meter.total.live == 4096
        del element
    assert meter.total.live == 0


def test_operators_with_several_results_count_each(made: Made) -> None:
    with made() as meter:
        values, indices = torch.arange(KILO, dtype=torch.float32).topk(10)
        assert meter.total.live == values.nbytes + indices.nbytes


def test_a_tensor_made_of_python_numbers_counts(made: Made) -> None:
    with made() as meter:
        vector = torch.tensor([1.0, 2.0, 3.0])
        assert meter.total.live == vector.nbytes


def test_a_tensor_that_is_resized_counts_with_its_new_size(made: Made) -> None:
    with made() as meter:
        block = torch.zeros(KILO)
        block.resize_(4 * KILO)
        assert meter.total.live == 4 * 4096
        out = torch.empty(0)
        torch.add(block, 1, out=out)
        assert meter.total.live == 8 * 4096
        del block, out
        assert meter.total.live == 0


def test_a_storage_that_is_resized_by_itself_counts_with_its_new_size(made: Made) -> None:
    plain = torch.UntypedStorage.resize_
    with made() as meter:
        block = torch.zeros(KILO)
        block.untyped_storage().resize_(0)
        assert meter.total.live == 0
        block.untyped_storage().resize_(2 * 4096)
        assert meter.total.live == 2 * 4096
    assert torch.UntypedStorage.resize_ is plain


def test_what_autograd_keeps_for_backward_counts_until_backward(made: Made) -> None:
    inputs = torch.zeros(KILO, requires_grad=True)
    with made() as meter:
        loss = inputs.exp().sum()  # exp keeps its result
        assert meter.total.live == 4096 + 4
        loss.backward()
        assert meter.total.live == 4096 + 4  # the kept result is gone, the gradient is there
        inputs.grad = None
        assert meter.total.live == 4


def test_what_backward_makes_is_seen(made: Made) -> None:
    weight = torch.ones(KILO, requires_grad=True)
    with made() as meter:
        loss = (weight * 2).sum()
        loss.backward()
        assert meter.total.live == loss.nbytes + 4096
    assert weight.grad is not None


def test_the_innermost_kind_counts(made: Made) -> None:
    with made() as meter:
        with meter.kind(Memory.A):
            outer = torch.zeros(KILO)
            with meter.kind(Memory.ALPHA):
                inner = torch.zeros(2 * KILO)
            again = torch.zeros(KILO)
        other = torch.zeros(4 * KILO)
        live = meter.live_by_kind()
        assert live[Memory.A] == 2 * 4096
        assert live[Memory.ALPHA] == 2 * 4096
        assert live[Memory.OTHER] == 4 * 4096
        del outer, inner, again, other
    assert set(meter.live_by_kind().values()) == {0}
    assert meter.peak_by_kind()[Memory.A] == 2 * 4096


def test_every_kind_has_a_peak_of_its_own(made: Made) -> None:
    with made() as meter:
        for kind in (Memory.A, Memory.BOUNDS):
            with meter.kind(kind):
                block = torch.zeros(KILO)
            del block
    peaks = meter.peak_by_kind()
    assert peaks[Memory.A] == peaks[Memory.BOUNDS] == meter.total.peak == 4096


def test_a_tensor_read_from_elsewhere_counts_once_adopted(made: Made) -> None:
    array = np.zeros(KILO, dtype=np.float32)
    with made() as meter:
        weight = torch.from_numpy(array)
        meter.adopt(weight, Memory.WEIGHTS)
        meter.adopt(weight.view(2, -1), Memory.WEIGHTS)
        assert meter.live_by_kind()[Memory.WEIGHTS] == 4096
        del weight
        assert meter.total.live == 0


def test_adopting_a_tensor_changes_its_kind_and_counts_it_once(made: Made) -> None:
    with made() as meter:
        block = torch.zeros(KILO)
        meter.adopt(block, Memory.BOUNDS)
        assert meter.total.live == 4096
        assert meter.live_by_kind()[Memory.BOUNDS] == 4096
        assert meter.live_by_kind()[Memory.OTHER] == 0
        del block
        assert meter.total.live == 0


def test_tensors_that_outlive_the_meter_are_still_subtracted(made: Made) -> None:
    with made() as meter:
        block = torch.zeros(KILO)
    assert meter.total.live == 4096
    del block
    assert meter.total.live == 0


def test_a_sparse_tensor_counts_by_its_dense_parts(made: Made) -> None:
    with made() as meter:
        indices, values = torch.tensor([[0, 2]]), torch.ones(2)
        sparse = torch.sparse_coo_tensor(indices, values, (3,), check_invariants=False)
        assert meter.total.live == indices.nbytes + values.nbytes
        del indices, values, sparse
        assert meter.total.live == 0


def test_results_are_those_without_the_meter(made: Made) -> None:
    torch.manual_seed(0)
    image, kernel = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3, requires_grad=True)

    def gradient() -> torch.Tensor:
        (result,) = torch.autograd.grad(conv2d(image, kernel).relu().sum(), kernel)
        return result

    plain = gradient()
    with made():
        metered = gradient()
    assert torch.equal(plain, metered)


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["make", "view", "double", "drop", "resize"]),
        st.integers(0, 100),
        st.sampled_from(list(Memory)),
    ),
    max_size=25,
)


@examples(60)
@given(_STEPS)
def test_live_bytes_are_those_of_the_distinct_storages_that_live(
    made: Made,
    steps: list[tuple[str, int, Memory]],
) -> None:
    held: list[torch.Tensor] = []
    peak = 0
    with made() as meter:
        for step, number, kind in steps:
            pick = number % len(held) if held else None
            with meter.kind(kind):
                if step == "make" or pick is None:
                    held.append(torch.empty(number))
                elif step == "view":
                    held.append(held[pick].view(-1))
                elif step == "double":
                    held.append(held[pick] * 2)
                elif step == "drop":
                    held.pop(pick)
                else:
                    held[pick].resize_(number)
            storages = {x.untyped_storage()._cdata: x.untyped_storage().nbytes() for x in held}
            assert meter.total.live == sum(storages.values())
            assert sum(meter.live_by_kind().values()) == meter.total.live
            assert sum(meter.at_peak_by_kind().values()) == meter.total.peak
            peak = max(peak, meter.total.live)
    assert meter.total.peak >= peak


def test_the_meter_keeps_no_tensor_alive(made: Made) -> None:
    with made():
        block = torch.zeros(KILO)
        storage = weakref.ref(block.untyped_storage())
        del block
        gc.collect()
        assert storage() is None
