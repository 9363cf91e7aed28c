"""lightball: does your training run need momentum?"""

__version__ = "0.1.0"
