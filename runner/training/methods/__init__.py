"""The training methods by the name that a recipe gives them; one file each."""

from __future__ import annotations

from runner.contract.errors import UsageError
from runner.training.methods.adversarial import Adversarial
from runner.training.methods.crown_ibp import CrownIbp
from runner.training.methods.ibp import Ibp
from runner.training.methods.method import TrainingMethod
from runner.training.methods.mixtrain import MixTrain
from runner.training.methods.nbc import Nbc
from runner.training.methods.nbc_adversarial import NbcAdversarial
from runner.training.methods.nbc_trades import NbcTrades
from runner.training.methods.rs import Rs
from runner.training.methods.standard import Standard
from runner.training.methods.trades import Trades
from runner.training.methods.verified import VerifiedTraining

METHODS: dict[str, type[TrainingMethod]] = {
    "standard": Standard,
    "adversarial": Adversarial,
    "trades": Trades,
    "rs": Rs,
    "ibp": Ibp,
    "crown-ibp": CrownIbp,
    "nbc": Nbc,
    "nbc+adversarial": NbcAdversarial,
    "nbc+trades": NbcTrades,
    "mixtrain": MixTrain,
    "verified": VerifiedTraining,
}


def method_named(name: str) -> type[TrainingMethod]:
    """Raises UsageError for a method that does not exist."""
    if name not in METHODS:
        raise UsageError(f"unknown method {name!r}; known: {', '.join(METHODS)}")
    return METHODS[name]
