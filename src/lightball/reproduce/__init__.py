"""The experiments of *The Marginal Value of Momentum for Small Learning Rate SGD* (arXiv:2307.15196), as presets.

Each is made of parts, paired comparisons of :mod:`lightball.studies`, at one of four scales.
"""
