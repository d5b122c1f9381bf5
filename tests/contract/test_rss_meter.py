"""Peak resident memory counts from the start of the meter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runner.contract.rss import RssMeter

pytestmark = pytest.mark.alone

MEGA = 1 << 20


def test_memory_that_was_given_back_is_in_the_peak() -> None:
    meter = RssMeter()
    block = np.ones(64 * MEGA // 8)
    del block
    assert 60 * MEGA < meter.peak_bytes < 90 * MEGA


def test_an_earlier_peak_does_not_count() -> None:
    earlier = np.ones(128 * MEGA // 8)
    del earlier
    meter = RssMeter()
    assert meter.reset
    assert meter.peak_bytes < 32 * MEGA


def _status(folder: Path, now: int, peak: int) -> Path:
    path = folder / "status"
    path.write_text(f"Name:\tpython\nVmHWM:\t{peak} kB\nVmRSS:\t{now} kB\n")
    return path


def test_where_the_peak_cannot_be_reset_it_says_so_and_counts_all(tmp_path: Path) -> None:
    status = _status(tmp_path, now=1000, peak=1500)
    meter = RssMeter(clear_refs=tmp_path / "missing" / "clear_refs", status=status)
    assert not meter.reset
    assert meter.peak_bytes == 500 * 1024


def test_the_peak_is_never_negative(tmp_path: Path) -> None:
    status = _status(tmp_path, now=1000, peak=1000)
    meter = RssMeter(clear_refs=tmp_path / "clear_refs", status=status)
    _status(tmp_path, now=500, peak=900)
    assert meter.peak_bytes == 0


def test_a_kernel_without_the_figure_is_an_error(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\n")
    with pytest.raises(OSError, match="has no VmRSS"):
        RssMeter(clear_refs=tmp_path / "clear_refs", status=status)
