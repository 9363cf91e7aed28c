"""ResNet-32 on CIFAR-10 under SVAG: with the curvature of a step turned down, SGD and SGDM come together.

Source: the experiment of arXiv:2307.15196 with B = 512, decays at epochs 80 and 120 of 160, and a rate of 0.2 found by
grid search for SGDM; then both rules at that rate under SVAG(ℓ) for ℓ = 1, 2, 4, … A part tunes SGDM and compares at ℓ
= 1; each further ℓ is a part of its own, at the rate found. All values of ℓ share their seeds, so that gaps are paired
too.

The paper leaves open whether 0.2 is η or the rate of the sum form (here the latter by default, as in the paper's grid
for ImageNet), what BatchNorm does under SVAG, weight decay, and the last layer: all are options.
"""

from lightball.reproduce.cifar.found import CifarResult, read_cifar
from lightball.reproduce.cifar.running import decide, plan_cifar, run_cifar
from lightball.reproduce.cifar.settings import PRESETS, CifarSettings

__all__ = ["PRESETS", "CifarResult", "CifarSettings", "decide", "plan_cifar", "read_cifar", "run_cifar"]
