"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# Speed is measured in benchmarks/, never by a test: the machine may be busy.
settings.register_profile("lightball", deadline=None)
settings.load_profile("lightball")
