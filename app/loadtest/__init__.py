"""A load test of the template service: a plan, a driver, a log of every request, and what follows from it.

`plan` says what is sent, `target` where to, `http` and `grpc` how (each is a `reader`); `runner` sends it and keeps a
`RunLog`, counting database loads in the app's metrics and in PostgreSQL (`counters`). `result` turns the log into
figures (`latency`, `least`), `pages` into tables and HTML.
"""
