"""What a network is worth on pictures that noise, blur, weather or compression have spoiled: `danet robustness`.

Twelve of the fifteen corruptions of Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations" (ICLR 2019), with their five severities, for pictures of any size as Michaelis et al.,
"Benchmarking Robustness in Object Detection" (2019), use them. Left out: elastic transform and zoom blur, which move
pixels away from their labels, and frost, which needs photographs of it.
"""

from danet.robustness.corruptions import CORRUPTIONS, SEVERITIES, Corruption, corrupt
from danet.robustness.study import CLEAN, Condition, Robustness, conditions_of, study

__all__ = [
    "CLEAN",
    "CORRUPTIONS",
    "SEVERITIES",
    "Condition",
    "Corruption",
    "Robustness",
    "conditions_of",
    "corrupt",
    "study",
]
