"""Bounds of single neurons where a sub-domain may be unsafe: where its splits hold, of any layer,
and no row of its disjunct exceeds its threshold.

A constraint of a later layer than a neuron's bounds it as well (INVPROP, Kotha et al. 2023): rows
begin at the output, with a weight >= 0 of each of the disjunct's, pass the ReLUs with a β of each
split (β-CROWN, Wang et al. 2021), and take the neuron up on their way.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from runner.contract.vocabulary import Memory
from runner.engine.bounds.backward import Charges, Frontier, Relaxations, advance
from runner.engine.bounds.beta import SplitBounds
from runner.engine.bounds.features import Features
from runner.engine.bounds.rounding import LEDGER, smallest, unit
from runner.engine.bounds.split_relu import SplitNode
from runner.engine.bounds.subdomains import Subdomains

# Roundings of a threshold times its weight, and of the sum that it goes into, at most.
LIMIT_ROUNDINGS = 8


@dataclass(frozen=True, kw_only=True)
class Questions(Subdomains):
    """Of B neurons of one node, each in a sub-domain: which of the node's columns [B]; signs [B], 1
    or -1; limits [K, B], thresholds of the rows in float64; units [B] of the rows' weights, which
    are the last K multipliers.
    """

    node: SplitNode
    columns: Tensor
    signs: Tensor
    limits: Tensor
    units: Tensor

    def select(self, index: Tensor) -> Questions:
        own = super().select(index)
        plain = {field.name: getattr(own, field.name) for field in fields(Subdomains)}
        return Questions(
            **plain,
            node=self.node,
            columns=self.columns[index],
            signs=self.signs[index],
            limits=self.limits[:, index],
            units=self.units[index],
        )


@dataclass(frozen=True, kw_only=True)
class _Asking(Frontier):
    """Rows [K, B] of the disjuncts, before they are weighted, and what is asked, [1, B, *shape] of
    the node `at`.
    """

    questions: Questions
    at: str
    asked: Tensor


class ConfinedBounds(SplitBounds):
    """Lower bounds [1, B] of questions, signs · z."""

    def asked(self, questions: Questions) -> Questions:
        """With multipliers [1, B, V + K] to begin with."""
        first = self.initial(questions.before, 1) * (questions.phases == 0)[:, self.space.columns]
        with self._tag.kind(Memory.ALPHA):
            weights = first.new_zeros((1, len(questions), len(questions.rows)))
            return replace(questions, multipliers=torch.cat([first, weights], 2))

    def lasting(self, questions: Questions) -> Tensor:
        """Which multipliers [B, V + K] mean the same in other sub-domains: those that are no β."""
        free = (questions.phases == 0)[:, self.space.columns]
        return torch.cat([free, free.new_ones((len(free), len(questions.rows)))], 1)

    def _limits(self, domains: Subdomains) -> tuple[list[Tensor], list[Tensor] | None]:
        limits = torch.where(domains.phases[:, self.space.columns] == 0, 1.0, torch.inf)
        weights = limits.new_full((len(limits), len(domains.rows)), torch.inf)
        whole = torch.cat([limits, weights], 1).to(self.scale)[None]
        return self._parts(whole), None

    def _parts(self, multipliers: Tensor) -> list[Tensor]:
        count = multipliers.shape[2] - len(self.scale)
        return list(multipliers.split([*self.space.slots, count], 2))

    def _start(self, domains: Subdomains) -> Frontier:
        return self._asking(super()._start(domains), domains)

    def _fixed(self, domains: Subdomains) -> tuple[Frontier, Relaxations]:
        start, relaxations = super()._fixed(domains)
        return self._asking(start, domains), relaxations

    def _asking(self, rows: Frontier, domains: Subdomains) -> _Asking:
        if not isinstance(domains, Questions):
            raise TypeError("neurons are bounded as questions say")
        name = domains.node.before
        shape = self._network.graph.node(name).shape
        with self._tag.kind(Memory.A):
            asked = domains.rows.new_zeros((len(domains), self._network.graph.node(name).size))
            neurons = domains.node.neurons[domains.columns]
            asked.scatter_(1, neurons[:, None], domains.signs[:, None].to(asked))
            own = self._network.features.local(name, asked.reshape(1, -1, *shape), 2)
        return _Asking(
            rows.pending, rows.constant, rows.todo, questions=domains, at=name, asked=own
        )

    def _passed(
        self,
        start: Frontier,
        relaxations: Relaxations,
        parts: list[Tensor],
        charges: Charges | None = None,
    ) -> Frontier:
        if not isinstance(start, _Asking):
            raise TypeError("a pass begins with what is asked")
        questions = start.questions
        *slopes, weights = parts
        weights = _Alike.apply(weights, self._network.features)[0] * questions.units[:, None]
        pending = {name: _weighted(rows, weights) for name, rows in start.pending.items()}
        fine = weights.to(LEDGER).T
        # Every rank has its part of the thresholds.
        limits = (fine * questions.limits) / self._network.features.ranks
        constant = ((fine * start.constant) - limits).sum(0, keepdim=True)
        error = None
        if charges is not None:
            sizes = (limits.abs() + (fine * start.constant).abs()).sum(0, keepdim=True)
            error = sizes * LIMIT_ROUNDINGS * len(limits) * unit(LEDGER)
            for name, rows in start.pending.items():
                error = error + charges.values(name, len(rows) * _weighted(rows.abs(), weights))
                error = error + self._underflow(name, len(rows))
        known = pending.get(start.at)
        if known is not None and error is not None and charges is not None:
            error = error + charges.values(start.at, known.abs() + start.asked.abs())
        pending[start.at] = start.asked if known is None else known + start.asked
        asking = Frontier(pending, constant, start.todo, error)
        return advance(self._network, asking, relaxations, self._by_node(slopes), charges)

    def _underflow(self, name: str, rows: int) -> float:
        """What it costs that so many rows are weighted."""
        size = self.intervals[name].size
        return float(size.sum(dtype=LEDGER) + size.numel()) * rows * smallest(size.dtype)


def _weighted(rows: Tensor, weights: Tensor) -> Tensor:
    """Rows [K, B, *shape], of weights [B, K], added up: [1, B, *shape]."""
    shaped = weights.T.reshape(*weights.T.shape, *(1,) * (rows.dim() - 2))
    return (rows * shaped).sum(0, keepdim=True)


class _Alike(torch.autograd.Function):
    """Parameters that all ranks have the same of, and go on having the same of."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, features: Features) -> Tensor:
        ctx.features = features
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.features.total(gradients[0]), None
