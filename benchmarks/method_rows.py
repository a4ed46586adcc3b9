"""Rows of `learners.py` with a method of `plain_methods.py`: two smaller protocols.

small     Split-MNIST with the first 10,000 digits
shifted   Rotated-MNIST: five updates of 2,000 of them each, turned by 0, 20, 40, 60 and 80 degrees;
          mean accuracy over the five angles
"""

from __future__ import annotations

from plain_bias import LUCIR, WA, BiC
from plain_contrast import SCR
from plain_loops import Recipe
from plain_methods import Method
from plain_outputs import DECAY, PODER, SuperER
from plain_regularization import MAS, SI, L2Init
from protocols import Row

_AVERAGES = {"stable_decay": DECAY, "plastic_decay": DECAY}
_SUPER = {"consistency_weight": 0.1, "der_alpha": 0.3, **_AVERAGES}
METHOD_ROWS = [
    Row("small", "ER 500", "ER", Recipe(0.1, 10, 500, 10), method=Method),
    Row("small", "WA 500", "WA", Recipe(0.1, 10, 500, 10, alpha=2.0), method=WA),
    Row("small", "BiC 500", "BiC", Recipe(0.1, 10, 500, 10, alpha=2.0), method=BiC),
    Row("small", "LUCIR 500", "LUCIR", Recipe(0.03, 10, 500, 10, alpha=1.0), method=LUCIR),
    Row("small", "POD-ER 500", "POD-ER", Recipe(0.1, 10, 500, 10, alpha=1.0), method=PODER),
    Row(
        *("small", "Super-ER 500", "Super-ER"),
        recipe=Recipe(0.1, 10, 500, 10, alpha=0.3, beta=0.1),
        method=SuperER,
        own=_SUPER,
    ),
    Row("small", "SCR 500", "SCR", Recipe(0.1, 10, 500, 100), method=SCR, views=True),
    Row("shifted", "FineTuning", "FineTuning", Recipe(0.03), method=Method),
    Row("shifted", "MAS", "MAS", Recipe(0.03, alpha=0.1), method=MAS),
    Row("shifted", "SI", "SI", Recipe(0.03, alpha=0.01), method=SI),
    Row("shifted", "L2-Init", "L2-Init", Recipe(0.03, alpha=0.01), method=L2Init),
]
