"""Real servers from wheels: PostgreSQL and Valkey on loopback, for the run without Docker and for tests.

`postgres`, `redis`, `cluster` and `stack` are what others use. Below them: `server` (the life cycle all share),
`directory` (where one lives), `wheels` (its programs), `account` (whom it runs as), `process` and `watchdog` (it dies
with its owner).
Standard library only, synchronous; a start takes a second or two, so call it through `asyncio.to_thread`.
"""
