"""Watching templates: one hub a process, fed by the changes that the database announces, and a watch a caller."""
