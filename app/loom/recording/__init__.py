"""What went by, kept within bounds: a ring in memory, a feed for those who watch, and a file that outlives the process.

`recorder` turns events into `record`s and tells its sinks of them; `ring`, `feed` and `session` are the sinks.
`lines` writes and reads the file's lines, with pieces of `jsontext` and a `memo` of what was made of metadata. What
is kept is redacted before it is kept. What is cut, dropped or evicted is counted, and shown.
"""
