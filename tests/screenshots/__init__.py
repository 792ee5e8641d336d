"""Pictures of the pages, taken of the demo while it runs."""
