"""Studies: paired comparisons of SGD and SGDM, planned, tuned, confirmed and stored."""

from lightball.studies.api import compare
from lightball.studies.plan import Plan
from lightball.studies.result import Result
from lightball.studies.result_json import as_json
from lightball.studies.settings import Settings

__all__ = ["Plan", "Result", "Settings", "as_json", "compare"]
