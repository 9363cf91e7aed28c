"""Tasks to train: handwritten digits, and the user's own."""

from lightball.workloads.checks import check
from lightball.workloads.fingerprints import fingerprint, identity
from lightball.workloads.load import BUNDLED, load
from lightball.workloads.workload import Data, Workload, accuracy, cross_entropy

__all__ = ["BUNDLED", "Data", "Workload", "accuracy", "check", "cross_entropy", "fingerprint", "identity", "load"]
