"""The read path: cache tiers, the entry they hold, and the loader that composes them with singleflight."""
