"""Noisy gradient oracles: a loss, and gradients of it with noise, for many replicas at once."""

from lightball.oracles.batched import PerExampleLoss, check_vectorisable
from lightball.oracles.derivatives import gradient, hessian
from lightball.oracles.diffusion import Diffusion
from lightball.oracles.flattened import Flattened
from lightball.oracles.functions import FunctionOracle
from lightball.oracles.label_noise import LabelNoise, least_squares
from lightball.oracles.minibatch import MinibatchOracle, build
from lightball.oracles.noise import Noise, draw_noise
from lightball.oracles.protocol import CovarianceOracle, NoisyGradients, Oracle, SampledOracle, Stream, Tensors
from lightball.oracles.quadratic import Quadratic
from lightball.oracles.sampling import MinibatchStream, Sampling, SamplingKind
from lightball.oracles.seeded import Seeded
from lightball.oracles.seeds import generator, seed_of
from lightball.oracles.svag import Svag, svag_weights

__all__ = [
    "CovarianceOracle",
    "Diffusion",
    "Flattened",
    "FunctionOracle",
    "LabelNoise",
    "MinibatchOracle",
    "MinibatchStream",
    "Noise",
    "NoisyGradients",
    "Oracle",
    "PerExampleLoss",
    "Quadratic",
    "SampledOracle",
    "Sampling",
    "SamplingKind",
    "Seeded",
    "Stream",
    "Svag",
    "Tensors",
    "build",
    "check_vectorisable",
    "draw_noise",
    "generator",
    "gradient",
    "hessian",
    "least_squares",
    "seed_of",
    "svag_weights",
]
