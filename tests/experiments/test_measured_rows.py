"""How far bounds of a strategy are from baseline's is told on the scale of what they are about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from runner.experiments.measured_rows import bound_differences


def test_a_difference_is_a_share_of_the_neurons_own_magnitude(tmp_path: Path) -> None:
    theirs = {"a.lower": [-0.5, -8.0], "a.upper": [100.0, 0.25], "specs": [4.0, -2.0]}
    ours = {"a.lower": [-0.6, -8.0], "a.upper": [100.0, 0.50], "specs": [3.5, -2.0]}
    for name, bounds in (("theirs", theirs), ("ours", ours)):
        arrays = {key: np.array(value, np.float32) for key, value in bounds.items()}
        save_file(arrays, tmp_path / name)
    found = bound_differences(str(tmp_path / "ours"), str(tmp_path / "theirs"))
    assert found["greatest_difference"] == pytest.approx(0.5)
    # 0.1 of 100, 0.25 of 8, 0.5 of 4.
    assert found["greatest_relative"] == pytest.approx(0.5 / 4)
    assert found["spec_lost"] == pytest.approx(0.5)
    specs_agree = {key: value for key, value in ours.items() if key != "specs"} | {
        "specs": theirs["specs"]
    }
    arrays = {key: np.array(value, np.float32) for key, value in specs_agree.items()}
    save_file(arrays, tmp_path / "again")
    found = bound_differences(str(tmp_path / "again"), str(tmp_path / "theirs"))
    assert found["greatest_relative"] == pytest.approx(0.25 / 8)
