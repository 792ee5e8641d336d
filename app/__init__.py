"""A reference stack that shows a cache stampede, cures it, and proves the cure with figures."""

__version__ = "0.1.0"
