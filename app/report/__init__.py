"""Tables and charts, for the console and as self-contained HTML. It knows nothing of what it shows."""
