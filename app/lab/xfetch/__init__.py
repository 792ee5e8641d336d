"""Early refresh by XFetch: what theory says of it, its decision simulated, and the read path that makes it one load."""
