"""Options of commands. What several commands take is written once here; a command takes one
dataclass of what it was asked, from which its command line is made.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from runner.contract.vocabulary import AttackKind, Device, Method

T = TypeVar("T")

Network = Annotated[Path, typer.Argument(help="ONNX file, maybe .gz.")]
Ranks = Annotated[
    int,
    typer.Option(
        min=1,
        help="Processes of a parallel strategy without degrees; a layout has its own number.",
    ),
]
ChosenMethod = Annotated[
    Method, typer.Option("--method", help="How far to go, after everything cheaper.")
]
ChosenAttack = Annotated[
    AttackKind,
    typer.Option(
        "--attack",
        help="On what bounds leave open. pgd: gradients. interval: of bounds over small boxes too.",
    ),
]
ChosenDevice = Annotated[
    Device,
    typer.Option(
        "--device", help="auto: CUDA when every rank has a GPU. cuda: ranks may share GPUs."
    ),
]
Seed = Annotated[int, typer.Option(help="Of everything random.")]
WorkMemory = Annotated[
    float | None,
    typer.Option(
        min=0.1,
        metavar="MIB",
        help="What rows of A, α, β and domains of a rank may take at once, beside weights and "
        "stored domains [default: 32 on a CPU, 2048 on a GPU]. More: fewer and larger "
        "products, fewer collectives. Less: lower peaks.",
    ),
]
Filter = Annotated[
    str | None,
    typer.Option(
        "--filter",
        metavar="GLOB",
        help="Only instances whose network, property or <network>_<property> matches.",
    ),
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Only the first so many instances of each category.")
]
Repeat = Annotated[int, typer.Option(min=1, help="How often to run everything, to know the noise.")]
RunName = Annotated[
    str | None,
    typer.Option("--run", metavar="NAME", help="Name of the folder that is made, or resumed."),
]
Results = Annotated[Path, typer.Option(metavar="DIR", help="The folder that run folders are in.")]


def taking(
    options: type[Any], **defaults: object
) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """`command(asked, …)` as Typer is to see it: `asked`, of the dataclass `options`, is made from
    an option for each of its fields. `defaults`: of this command, where they are not the class's.
    """
    taken = [
        option.replace(kind=option.KEYWORD_ONLY, default=defaults.get(option.name, option.default))
        for option in inspect.signature(options, eval_str=True).parameters.values()
    ]

    def wrapped(command: Callable[..., T]) -> Callable[..., T]:
        _, *own = inspect.signature(command, eval_str=True).parameters.values()

        @wraps(command)
        def whole(**given: object) -> T:
            asked = options(**{option.name: given.pop(option.name) for option in taken})
            return command(asked, **given)

        whole.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [*(option.replace(kind=option.KEYWORD_ONLY) for option in own), *taken]
        )
        return whole

    return wrapped
