"""Tasks to train: handwritten digits, and the user's own."""

from lightball.workloads.load import BUNDLED, load
from lightball.workloads.workload import Data, Workload, accuracy, check, cross_entropy, fingerprint

__all__ = ["BUNDLED", "Data", "Workload", "accuracy", "check", "cross_entropy", "fingerprint", "load"]
