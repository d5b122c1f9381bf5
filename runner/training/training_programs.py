"""What a process of `vnncomp-runner train` runs; the harness starts these by name.

Each gives {"refused": message} for what UsageError says, so that the harness can say it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Any

import torch

# Adam imports it at its first step, for seconds: imported here, a forked process has it.
import torch._dynamo

from runner.contract.errors import UsageError
from runner.training.data import DataSet, data_set
from runner.training.export import attacked, figures, images_of_every_class, trained, write_category
from runner.training.loop import train_for
from runner.training.recipe import Recipe, Wanted, read_recipe

Target = Callable[[Mapping[str, Any]], dict[str, Any]]

CHECKPOINTS, FIGURES, DONE = "checkpoints", "networks.csv", "exported"
_STEPS, _RESTARTS = 100, 10  # of the attack that a label must withstand


def _said(target: Target) -> Target:
    @wraps(target)
    def whole(payload: Mapping[str, Any]) -> dict[str, Any]:
        # On one thread of a CPU every operation gives the same bits each time.
        torch.set_num_threads(1)
        try:
            return target(payload)
        except UsageError as error:
            return {"refused": str(error)}

    return whole


@_said
def check_target(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Whether all that a recipe needs is there: its name and the names of its networks."""
    recipe, data = _read(payload)
    images_of_every_class(data, recipe.category.images)
    networks = list(recipe.networks())
    for wanted in networks:
        wanted.architecture.network(data.images.shape[-1], wanted.seed)
    return {
        "name": recipe.name,
        "timeout": recipe.category.timeout,
        "networks": [{"name": w.name, "epochs": w.training.epochs} for w in networks],
    }


@_said
def train_target(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Goes on with one network for so many seconds: how far it came."""
    recipe, data = _read(payload)
    wanted = _network(recipe, payload["network"])
    return asdict(train_for(wanted, data, _checkpoint(payload, wanted), payload["seconds"]))


@_said
def export_target(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the category of trained networks, and the table of what is told of them.

    What is there already stays as it is, its labels too.
    """
    recipe = read_recipe(Path(payload["recipe"]))
    home = Path(payload["home"])
    done = home / DONE
    if done.exists() and done.read_text(encoding="ascii") == recipe.digest:
        return {}
    done.unlink(missing_ok=True)
    data = data_set(recipe.data.name, recipe.data.folder)
    networks = [trained(w, data, _checkpoint(payload, w)) for w in recipe.networks()]
    write_category(recipe, networks, data, home / recipe.name)
    (home / FIGURES).write_text(figures(recipe, networks, data), encoding="ascii")
    done.write_text(recipe.digest, encoding="ascii")
    return {}


@_said
def attack_target(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Properties that a long attack on one network violates."""
    recipe, data = _read(payload)
    made = trained(
        wanted := _network(recipe, payload["network"]), data, _checkpoint(payload, wanted)
    )
    return {"violated": attacked(recipe, made, data, steps=_STEPS, restarts=_RESTARTS)}


def _read(payload: Mapping[str, Any]) -> tuple[Recipe, DataSet]:
    recipe = read_recipe(Path(payload["recipe"]))
    return recipe, data_set(recipe.data.name, recipe.data.folder)


def _network(recipe: Recipe, name: str) -> Wanted:
    return next(wanted for wanted in recipe.networks() if wanted.name == name)


def _checkpoint(payload: Mapping[str, Any], wanted: Wanted) -> Path:
    return Path(payload["home"]) / CHECKPOINTS / f"{wanted.name}.pt"
