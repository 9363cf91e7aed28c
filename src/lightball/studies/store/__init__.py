"""The durable results of studies: one file a finished chunk, shared by any number of processes."""

from lightball.studies.store.disk import Damage
from lightball.studies.store.store import Store
from lightball.studies.store.surveying import Counts, InFlight, Survey, survey
from lightball.studies.store.tables import load

__all__ = ["Counts", "Damage", "InFlight", "Store", "Survey", "load", "survey"]
