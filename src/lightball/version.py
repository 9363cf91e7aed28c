"""The version, alone in a module so that every room can have it."""

__version__ = "0.1.0"
