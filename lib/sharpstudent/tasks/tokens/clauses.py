"""Layers of differentiable Tsetlin machines: conjunctions of literals (clauses) that vote for outputs.

A clause has a mask p over the features and a mask pbar over their negations, 1 where the literal is part of the clause:

    clause = exp(-clamp(scale * sum over features of [p (1 - x) + pbar x], 0, 10))
    output = (clauses + bias) votes

It is 1 where every literal of the clause holds, and falls with each one that does not. A mask is hard going forward and
a sigmoid going backward (straight-through: Bengio, Leonard, Courville 2013, "Estimating or Propagating Gradients
Through Stochastic Neurons"): `hard + (soft - soft.detach())`.

The machine of Granmo 2018, "The Tsetlin Machine", learns by reinforcement, not by gradients. Half of the clauses are
kept in banks called positive, half in banks called negative; what a clause speaks for is the sign of its votes.

Legend: R rows, N tokens, F features, C clauses, K outputs.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

Literals = Literal["single", "binary", "soft"]
MOST_MISSING = 10.0  # the largest exponent: a clause is never exactly 0
BINARY_SCALE = 0.25  # of the sum over features with binary literals: four that fail leave 1 / e
SOFT_SCALE = 4.0  # divided by F, with soft literals
BINARY_BIAS = -0.35  # of a clause at the start, with binary literals: about minus its mean
DENSITY = (-0.2, 0.1)  # mean and standard deviation of the logits at the start, binary literals: about 2 % included
SINGLE_SCALE = 1.0  # with single literals at the start: one that fails leaves 1 / e
SINGLE_OUT, SINGLE_IN = (-0.2, 0.05), 0.1  # logits at the start: of literals outside a clause, of the one inside
SINGLE_SLOPE = 4.0  # of the sigmoid before binary literals: how narrow the window is in which they have a gradient


def straight_through(soft: Tensor) -> Tensor:
    """Round values of 0..1 to 0 or 1, exactly, with the gradient of the values themselves.

    In another order of the sum, rounding would put a clause that holds below the clamp, where it has no gradient.
    """
    return (soft > 0.5).to(soft.dtype) + (soft - soft.detach())


class UsageMeter(nn.BatchNorm1d):
    """Running mean and variance of values per unit (a clause, an attention head), kept with the weights.

    It is a BatchNorm of which only the statistics are used, so that the second pass of SAM, a rollback, an average of
    weights and a resumed run treat it as they treat every other running statistic.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, units: int) -> None:
        """Build a meter of this many units."""
        super().__init__(units, affine=False)
        self.reset_running_stats()

    def reset_running_stats(self) -> None:
        """Begin with equal usage of all units."""
        super().reset_running_stats()
        self.running_mean.fill_(1.0)

    @property
    def is_counting(self) -> bool:
        """Whether it takes what it reads into its statistics."""
        return self.training and self.track_running_stats

    def forward(self, values: Tensor) -> Tensor:  # type: ignore[override]
        """Take values (..., units) into the statistics while training, and return them as they are."""
        if self.is_counting and values[..., 0].numel() > 1:
            with torch.no_grad():
                rate = 0.1 if self.momentum is None else self.momentum
                seen = values.detach().flatten(0, -2).to(self.running_mean.dtype)
                self.running_mean.lerp_(seen.mean(0), rate)
                self.running_var.lerp_(seen.var(0), rate)
        return values


class FuzzyPatternTM(nn.Module):
    """C clauses over F features that vote for K outputs: (..., F) -> (..., K).

    The layer `usage` gives the clauses (..., C) as a feature map, which terms of the loss can read.

    Attributes:
        is_hard: Whether masks (and binary literals) are rounded; the soft form is for tests and comparisons.
        usage: Mean and variance of each clause over training inputs.
    """

    def __init__(self, features: int, clauses: int, outputs: int, literals: Literals = "binary") -> None:
        """Build the layer.

        Args:
            features: F.
            clauses: C, divisible by two.
            outputs: K.
            literals: `binary` and `single`: inputs are rounded, straight-through; `soft`: values of 0..1 are taken as
                they are. A machine with `single` starts with one literal a clause, spread evenly over the features, and
                with clauses of mean 0 after their bias; with `binary`, each literal is in at the same low chance.

        Raises:
            ValueError: For an odd number of clauses.
        """
        super().__init__()
        if clauses % 2 or clauses < 2:
            raise ValueError(f"a number of clauses must be even, half of them in each bank, got {clauses}")
        self.literals: Literals = literals
        self.is_hard = True
        mean, deviation = {"single": SINGLE_OUT, "binary": DENSITY, "soft": (0.0, 0.5)}[literals]
        shape = (clauses // 2, features)
        self.ta_pos = nn.Parameter(torch.empty(shape).normal_(mean, deviation))
        self.ta_pos_inv = nn.Parameter(torch.empty(shape).normal_(mean, deviation))
        self.ta_neg = nn.Parameter(torch.empty(shape).normal_(mean, deviation))
        self.ta_neg_inv = nn.Parameter(torch.empty(shape).normal_(mean, deviation))
        bias = {"single": -(1.0 + math.exp(-SINGLE_SCALE)) / 2, "binary": BINARY_BIAS, "soft": 0.0}[literals]
        self.clause_bias = nn.Parameter(torch.full((clauses,), bias))
        self.voting = nn.Parameter(torch.empty(clauses, outputs).normal_(0.0, 1.0 / math.sqrt(clauses)))
        self.scale = {"single": SINGLE_SCALE, "binary": BINARY_SCALE, "soft": SOFT_SCALE / features}[literals]
        self.usage = UsageMeter(clauses)
        if literals == "single":
            self._include_one()

    @torch.no_grad()
    def _include_one(self) -> None:
        """Include one literal in each clause, plain or negated at random: every feature is read equally often."""
        half, features = self.ta_pos.shape
        read = torch.cat([torch.randperm(features) for _ in range(-(-2 * half // features))])[: 2 * half]
        banks = (self.ta_pos, self.ta_neg), (self.ta_pos_inv, self.ta_neg_inv)
        for clause, feature in enumerate(read.tolist()):
            bank = banks[int(torch.randint(2, ()))][clause // half]
            bank[clause % half, feature] = SINGLE_IN

    @property
    def is_binary(self) -> bool:
        """Whether literals are bits."""
        return self.literals != "soft"

    def masks(self) -> tuple[Tensor, Tensor]:
        """Compute the masks of features and of negated features, (C, F) each."""
        plain = torch.cat([self.ta_pos, self.ta_neg]).sigmoid()
        negated = torch.cat([self.ta_pos_inv, self.ta_neg_inv]).sigmoid()
        return (straight_through(plain), straight_through(negated)) if self.is_hard else (plain, negated)

    def evaluate_clauses(self, inputs: Tensor) -> Tensor:
        """Compute the clauses (..., C) of features (..., F) in 0..1."""
        literals = straight_through(inputs) if self.is_binary and self.is_hard else inputs
        plain, negated = self.masks()
        # sum of p (1 - x) + pbar x = sum p + x (pbar - p): one matrix product.
        missing = plain.sum(1) + literals @ (negated - plain).T
        # Never below 0. A clamp there would take the gradient from clauses that hold: it is 0 at its lower bound.
        return torch.exp(-(self.scale * missing).clamp_max(MOST_MISSING))

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Let the clauses vote: (..., F) in 0..1 -> the outputs (..., K), and the clauses (..., C)."""
        clauses = self.usage(self.evaluate_clauses(inputs))
        return (clauses + self.clause_bias) @ self.voting, clauses

    @torch.no_grad()
    def weigh_features(self) -> Tensor:
        """Weigh each feature (F,) by the clauses that read it, each by how much it varies over training inputs."""
        plain, negated = self.masks()
        return self.usage.running_var.sqrt() @ (plain + negated)

    @torch.no_grad()
    def count_dead(self, least_deviation: float = 1e-3) -> int:
        """Count the clauses that hardly vary over training inputs: they tell nothing apart."""
        return int((self.usage.running_var.sqrt() < least_deviation).sum())


class DeepTM(nn.Module):
    """A hidden machine with residual and norm, then a machine for the outputs: (..., F) -> (..., K)."""

    def __init__(self, features: int, clauses: int, outputs: int, literals: Literals = "binary") -> None:
        super().__init__()
        self.hidden = FuzzyPatternTM(features, clauses, features, literals)
        self.norm = nn.LayerNorm(features)
        self.classifier = FuzzyPatternTM(features, clauses, outputs, literals)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Let both machines vote, one after the other; the clauses are those of the second."""
        return self.classifier(self.norm(inputs + self.hidden(inputs)[0]).sigmoid())

    def weigh_features(self) -> Tensor:
        """Weigh each feature (F,) as the first machine does, which reads it."""
        return self.hidden.weigh_features()


class TMFeedForward(nn.Module):
    """In the place of a transformer's feed-forward: norm, linear, machine, dropout: (R, N, D) -> (R, N, D).

    What the machine reads is mapped to 0..1 by a sigmoid: of the value before GELU with binary literals (true where it
    is above 0), and of GELU's output with soft ones, where it never falls below 0.457.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        clauses: int,
        *,
        backend: Literal["ste", "deeptm"] = "ste",
        literals: Literals = "binary",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.proj = nn.Linear(width, hidden)
        self.core = {"ste": FuzzyPatternTM, "deeptm": DeepTM}[backend](hidden, clauses, width, literals)
        self.dropout = nn.Dropout(dropout)
        self.literals = literals

    def read(self, tokens: Tensor) -> Tensor:
        """Compute the features in 0..1 that the machine reads."""
        values = self.proj(self.norm(tokens))
        if self.literals == "soft":
            return nn.functional.gelu(values).sigmoid()
        return (values * SINGLE_SLOPE if self.literals == "single" else values).sigmoid()

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the update of the tokens, and the clauses (R, N, C)."""
        update, clauses = self.core(self.read(tokens))
        return self.dropout(update), clauses

    @torch.no_grad()
    def weigh_tokens(self) -> Tensor:
        """Build the linear map (F, D) from a change of the tokens to what the clauses see of it, without the norms.

        Its rows are those of the projection, each times the weight of its feature.
        """
        return self.core.weigh_features()[:, None] * self.proj.weight
