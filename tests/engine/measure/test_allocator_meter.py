"""What the allocator's meter tells beside the dispatch mode's, of the same computations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from runner.contract.question import Question
from runner.contract.vocabulary import Memory, Meter, Method, Verdict
from runner.engine.measure import probe as probe_module
from runner.engine.measure.allocator import AllocatorMeter
from runner.engine.measure.dispatch import DispatchMeter
from runner.engine.measure.library import BuildError, build
from runner.engine.measure.tensors import Tally
from runner.engine.programs.verify import prepare_target, verify_question
from runner.problem.instances import Instance, read_category
from runner.verifiers.strategies import strategy_named

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
KILO = 1024  # floats in a block: 4096 bytes


@pytest.fixture(scope="module")
def library() -> Path:
    try:
        return build()
    except BuildError as error:
        pytest.skip(str(error))


class Both(ExitStack):
    """Counts the same computation in both ways at once."""

    name = Meter.NONE

    def __init__(self, library: Path) -> None:
        super().__init__()
        self.allocator, self.dispatch = AllocatorMeter(library), DispatchMeter()

    def __enter__(self) -> Both:
        self.enter_context(self.allocator)
        self.enter_context(self.dispatch)
        return self

    @contextmanager
    def kind(self, kind: Memory) -> Iterator[None]:
        with self.allocator.kind(kind), self.dispatch.kind(kind):
            yield

    def adopt(self, tensor: Tensor, kind: Memory) -> None:
        self.allocator.adopt(tensor, kind)
        self.dispatch.adopt(tensor, kind)

    @property
    def total(self) -> Tally:
        return self.allocator.total

    def peak_by_kind(self) -> dict[Memory, int]:
        return {}

    at_peak_by_kind = peak_by_kind


@pytest.mark.slow
@pytest.mark.parametrize(
    ("category", "method"),
    [("digits_mlp", Method.COMPLETE), ("digits_cnn", Method.CROWN), ("car_following", Method.IBP)],
)
def test_a_verification_needs_the_same_bytes_and_workspaces(
    category: str,
    method: Method,
    library: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = Both(library)
    monkeypatch.setattr(probe_module, "tensor_meter", lambda: both)
    verify_first(category, method, tmp_path)
    allocator, dispatch = both.allocator, both.dispatch
    assert allocator.live_by_kind() == dispatch.live_by_kind()
    for kind in (Memory.ALPHA, Memory.BETA, Memory.BOUNDS):
        assert allocator.peak_by_kind()[kind] == dispatch.peak_by_kind()[kind]
    # Convolutions take workspaces; NumPy's memory and files that are mapped are not torch's.
    few = 2048
    assert allocator.peak_by_kind()[Memory.A] >= dispatch.peak_by_kind()[Memory.A]
    assert allocator.total.peak >= dispatch.total.peak - few
    if category != "digits_cnn":
        assert allocator.total.peak == pytest.approx(dispatch.total.peak, abs=few)


def verify_first(category: str, method: Method, folder: Path) -> None:
    row = read_category(BENCHMARKS / category)[0]
    assert isinstance(row, Instance)
    prepared = folder / "prepared"
    network, question = str(row.network), str(row.property)
    prepare_target({"network": network, "prepared": str(prepared), "property": question})
    job = Question(
        network=network,
        prepared=str(prepared),
        property=question,
        strategy=strategy_named("baseline"),
        ranks=1,
        timeout_s=60.0,
        method=method,
    )
    assert verify_question(job).verdict is not Verdict.ERROR


def test_memory_that_an_operator_takes_for_a_while_counts(library: Path) -> None:
    block = torch.zeros(KILO)
    with Both(library) as both:
        torch.logsumexp(block, 0)
    assert both.dispatch.total.peak == 4
    assert both.allocator.total.peak >= 4096
    image, kernel = torch.zeros(1, 4, 16, 16), torch.zeros(8, 4, 3, 3)
    with Both(library) as both:
        result = conv2d(image, kernel)
    assert both.dispatch.total == Tally(result.nbytes, result.nbytes)
    assert both.allocator.total.live == result.nbytes
    assert both.allocator.total.peak > result.nbytes


def test_a_tensor_that_was_adopted_counts_when_it_is_resized(library: Path) -> None:
    block = torch.zeros(KILO)
    with AllocatorMeter(library) as meter:
        meter.adopt(block, Memory.WEIGHTS)
        block.untyped_storage().resize_(0)
        assert meter.total.live == 0
        with meter.kind(Memory.WEIGHTS):
            block.resize_(2 * KILO)
        assert meter.live_by_kind()[Memory.WEIGHTS] == 2 * 4096
        del block
        assert meter.total.live == 0


def test_what_was_adopted_keeps_its_values_and_its_owner(library: Path) -> None:
    numbers = torch.arange(KILO, dtype=torch.float32).numpy().copy()
    with AllocatorMeter(library) as meter:
        tensor = torch.from_numpy(numbers)
        meter.adopt(tensor, Memory.WEIGHTS)
        numbers[0] = 7.0
        assert tensor[:3].tolist() == [7.0, 1.0, 2.0]


def test_only_what_was_made_while_it_was_entered_counts(library: Path) -> None:
    meter = AllocatorMeter(library)
    before = torch.zeros(KILO)
    with meter:
        pass
    after = torch.zeros(KILO)
    assert meter.total.peak == 0
    del before, after
    assert meter.total.live == 0


def test_the_inner_of_two_meters_counts(library: Path) -> None:
    with AllocatorMeter(library) as outer:
        with AllocatorMeter(library) as inner:
            within = torch.zeros(KILO)
        beside = torch.zeros(2 * KILO)
        assert (outer.total.live, inner.total.live) == (2 * 4096, 4096)
        del within, beside
        assert (outer.total.live, inner.total.live) == (0, 0)


def test_only_what_its_own_thread_takes_counts_whoever_gives_it_back(library: Path) -> None:
    """Else figures would hang on when threads of gloo are scheduled."""
    held: list[Tensor] = []

    def take_and_drop() -> None:
        beside = torch.zeros(KILO)
        del beside
        held.clear()

    with AllocatorMeter(library) as meter:
        held.append(torch.zeros(KILO))
        assert meter.total.live == 4096
        thread = Thread(target=take_and_drop)
        thread.start()
        thread.join()
        assert meter.total == Tally(live=0, peak=4096)
