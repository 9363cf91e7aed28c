"""A monitor in a running job: what limits the training, and what momentum is worth to it, every thousand steps.

Callbacks are in modules of their own, since they import what they are for: ``lightball.forecast.monitor.lightning`` and
``lightball.forecast.monitor.hugging_face``.
"""

from lightball.forecast.monitor.assess import Outlook
from lightball.forecast.monitor.journal import read_monitor
from lightball.forecast.monitor.monitor import Monitor
from lightball.forecast.monitor.quick import Effort
from lightball.forecast.monitor.record import Record
from lightball.forecast.monitor.verdict import PhaseVerdict, Summary, phases_of_records

__all__ = ["Effort", "Monitor", "Outlook", "PhaseVerdict", "Record", "Summary", "phases_of_records", "read_monitor"]
