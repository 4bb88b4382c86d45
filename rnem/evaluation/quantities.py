"""What is measured, in words: one table for axes, claims and the command line.

No measure imports it, so that a better word makes none stale.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    """How a quantity is called."""

    label: str
    """A few words, as axes and claims say it."""
    unit: str = ""
    about: str = ""
    """How it is computed, for who reads it without the book."""

    @property
    def axis(self) -> str:
        """Label and unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


_NATS = "nats per frame"
QUANTITIES = {
    # of rnem.evaluation.evaluate
    "loss": Quantity("loss", _NATS, "training loss: gamma BCE + (1 - gamma) KL, summed over components (nats)"),
    "bce": Quantity(
        "next-frame BCE", _NATS, "next-frame BCE of max_k psi_k (nats); needs no E-step, comparable across K"
    ),
    "kl": Quantity("KL", _NATS, "KL(Bernoulli(0) || max_k psi_k) (nats)"),
    "relational": Quantity(
        "relational BCE",
        _NATS,
        "BCE of max_k psi_k on the balls in contact at frame t, target t+1 (nats; 0 where none was)",
    ),
    "contact": Quantity(
        "BCE on balls in contact",
        _NATS,
        "BCE of max_k psi_k on the balls in contact at the target frame itself (nats; 0 where none is)",
    ),
    "mixture": Quantity(
        "BCE of the mixture",
        _NATS,
        "BCE of sum_k gamma_k psi_k with gamma AFTER the E-step: it has seen the target (nats)",
    ),
    "wrong": Quantity("wrong pixels per frame", about="pixels on the wrong side of 0.5 in max_k psi_k"),
    "copy_last": Quantity(
        "wrong pixels of a copy", about="pixels that change from frame t to t+1: what copying the last frame gets wrong"
    ),
    "ari": Quantity(
        "adjusted Rand index", about="adjusted Rand index of argmax_k gamma_k over the pixels of single balls"
    ),
    # of rnem.analysis.authors_results, beside some of these
    "bce_max": Quantity("BCE of the maximum", _NATS, "BCE of max_k psi_k (nats per frame)"),
    "bce_mixture": Quantity(
        "BCE of the mixture",
        _NATS,
        "BCE of sum_k gamma_k psi_k with gamma AFTER the E-step, which has seen the target (nats per frame)",
    ),
    "wrong_mixture": Quantity(
        "wrong pixels of the mixture", about="pixels on the wrong side of 0.5 in sum_k gamma_k psi_k"
    ),
    # of rnem.analysis.attention
    "attention": Quantity(r"attention $\alpha_{ki}$"),
    "contribution": Quantity(r"contribution $|\alpha_{ki}\, e_{ki}|$"),
    # of claims alone (rnem.claims.rules.Measure)
    "wrong/copy_last": Quantity("wrong pixels, as a share of copy-last's"),
    "relational/bce": Quantity("relational BCE, as a share of the BCE"),
    "moving/copy_moving": Quantity("BCE on the pixels that move, as a share of the copy's"),
    "sequences": Quantity("training sequences"),
    "late_sequences": Quantity("training sequences"),
    "attention_rise": Quantity("attention just before a contact, as a multiple of the pair's at quiet times"),
    "imagined_wrong": Quantity("wrong pixels"),
    "imagined_near": Quantity("share of balls found within 2 pixels"),
    "turns": Quantity("next-frame predictions in which the ship is where its action says, as a share"),
    "identity": Quantity("largest difference of ψ from K separate RNNs"),
    "returned": Quantity("returns from behind the curtain predicted within 2 pixels, as a share"),
    "follows": Quantity("rollout steps in which the ship does what the action held says, as a share"),
    "together": Quantity("foreground ARI against what moves together"),
}


def axis_label(quantity: str) -> str:
    """What an axis says of a quantity: label and unit, or the name of one that the table does not have."""
    return QUANTITIES[quantity].axis if quantity in QUANTITIES else quantity
