"""A backend and its clients, so that there is something to see: all four stream kinds, errors with their details, slow
calls, calls that are given up, and a stampede."""
