"""The fixtures of all tests of stages."""

from studies import cohort, copy_of, finished

__all__ = ["cohort", "copy_of", "finished"]
