"""A world in which time is a number and Redis a model, for the real read path to run in."""
