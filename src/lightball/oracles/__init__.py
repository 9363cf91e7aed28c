"""Noisy gradient oracles: a loss, and gradients of it with noise, for many replicas at once."""

from lightball.oracles.batched import PerExampleLoss, check_vectorisable
from lightball.oracles.minibatch import MinibatchOracle, build
from lightball.oracles.protocol import CovarianceOracle, NoisyGradients, Oracle, SampledOracle, Stream, Tensors
from lightball.oracles.quadratic import GaussianQuadratic
from lightball.oracles.sampling import MinibatchStream, Sampling, SamplingKind
from lightball.oracles.seeds import generator, seed_of

__all__ = [
    "CovarianceOracle",
    "GaussianQuadratic",
    "MinibatchOracle",
    "MinibatchStream",
    "NoisyGradients",
    "Oracle",
    "PerExampleLoss",
    "SampledOracle",
    "Sampling",
    "SamplingKind",
    "Stream",
    "Tensors",
    "build",
    "check_vectorisable",
    "generator",
    "seed_of",
]
