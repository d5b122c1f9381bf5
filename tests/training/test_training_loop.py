"""Training is the same for the same seed, whatever interrupts it, and says what goes wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from recipes import tiny
from runner.contract.errors import UsageError
from runner.execute.gang import Ending, RankServer
from runner.training.data import data_set
from runner.training.loop import train_for
from runner.training.recipe import Recipe, read_recipe

TRAIN = "runner.training.training_programs:train_target"
CUT_S = 0.3


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    state: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    return dict(state["network"])


def same(one: Path, other: Path) -> bool:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    return all(torch.equal(value, theirs[name]) for name, value in ours.items())


def trained(recipe: Recipe, checkpoint: Path, which: int = 0, seconds: float = 1e9) -> Path:
    wanted = list(recipe.networks())[which]
    train_for(wanted, data_set(recipe.data.name), checkpoint, seconds)
    return checkpoint


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    recipe = read_recipe(tiny(tmp_path, seeds="seeds = [0, 1]"))
    first, again, other = (
        trained(recipe, tmp_path / f"{name}.pt", which)
        for name, which in (("first", 0), ("again", 0), ("other", 1))
    )
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.slow
def test_an_epoch_at_a_time_gives_the_same_weights_as_all_at_once(tmp_path: Path) -> None:
    recipe = read_recipe(tiny(tmp_path))
    wanted, data = list(recipe.networks())[1], data_set("digits")
    sliced = tmp_path / "sliced.pt"
    epochs = [train_for(wanted, data, sliced, 0).epoch for _ in range(8)]
    assert epochs == [1, 2, 3, 4, 5, 6, 7, 8]
    assert same(sliced, trained(recipe, tmp_path / "whole.pt", 1))


def test_a_training_that_was_killed_resumes_to_the_same_weights(
    tmp_path: Path, rank_server: RankServer
) -> None:
    path = tiny(tmp_path, epochs="epochs = 24", most="most = 320")

    def go_on(home: Path, seconds: float, within_s: float) -> tuple[Ending, int]:
        payload = {"recipe": str(path), "home": str(home), "network": "nbc_seed0"}
        payload |= {"seconds": seconds}  # type: ignore[dict-item]
        result = rank_server.run(TRAIN, payload, 1, tmp_path / "p", within_s, grace_s=0)
        return result.ended, (result.reports[0] or {}).get("epoch", -1)

    assert go_on(tmp_path / "whole", 1e9, 300) == (Ending.FINISHED, 24)
    killed = tmp_path / "killed"
    assert go_on(killed, 0, 300) == (Ending.FINISHED, 1)
    assert go_on(killed, 1e9, CUT_S)[0] is Ending.KILLED_AT_DEADLINE
    assert go_on(killed, 0, 300) == (Ending.FINISHED, 2), "it goes on where the checkpoint was"
    assert go_on(killed, 1e9, 300) == (Ending.FINISHED, 24)
    name = "checkpoints/nbc_seed0.pt"
    assert same(tmp_path / "whole" / name, killed / name)


@pytest.mark.parametrize(
    ("key", "line"),
    [("radius", "radius = 0.04"), ("width", "width = 17"), ("most", "most = 799")],
)
def test_the_checkpoint_of_another_recipe_is_refused(tmp_path: Path, key: str, line: str) -> None:
    checkpoint = trained(read_recipe(tiny(tmp_path)), tmp_path / "one.pt", seconds=0)
    kept = checkpoint.read_bytes()
    other = read_recipe(tiny(tmp_path, **{key: line}))
    with pytest.raises(UsageError, match=r"one.pt is of another recipe: .* choose another --out"):
        trained(other, checkpoint)
    assert checkpoint.read_bytes() == kept, "nothing is lost"


def test_a_checkpoint_that_is_cut_short_is_refused_with_the_remedy(tmp_path: Path) -> None:
    recipe = read_recipe(tiny(tmp_path))
    checkpoint = trained(recipe, tmp_path / "one.pt", seconds=0)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(UsageError, match=r"one.pt cannot be read .* delete it to train anew"):
        trained(recipe, checkpoint)


def test_a_loss_that_is_not_finite_ends_training_with_the_keys_to_change(tmp_path: Path) -> None:
    recipe = read_recipe(tiny(tmp_path, learning_rate="learning_rate = 1e-3"))
    wanted, data = next(recipe.networks()), data_set("digits")
    checkpoint = tmp_path / "one.pt"
    train_for(wanted, data, checkpoint, 0)
    kept = checkpoint.read_bytes()
    data.images[data.training] = float("nan")
    said = r"standard_seed0: the loss is nan in epoch 2; lower training.learning_rate or .*standard"
    with pytest.raises(UsageError, match=said):
        train_for(wanted, data, checkpoint, 1e9)
    assert checkpoint.read_bytes() == kept, "nothing is lost"
