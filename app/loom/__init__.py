"""Loom: a gRPC debugging proxy that changes nothing and shows everything.

The map, from the wire up:

- `call` says what a call is: frozen events, which all else here is written in.
- `proxy` moves the bytes. `framing` cuts them into HTTP/2 frames and gRPC messages, `headers` decodes HPACK, `status`
  knows which status a client makes of which end, `relay` reads both directions of a connection, and `live` turns what
  it reads into the events of its calls; none of them does I/O. `connection` is the pair of sockets that the bytes go
  through, untouched, `backlog` has them read a little later, `server` accepts, drains and stops, `encrypted` accepts
  over TLS, `upstream` dials the backend, `link` puts a circuit breaker before it, `tls` makes the contexts of both
  legs. `intercept` is the other lane, for what is to be changed or answered: `exchange` is a call in it, `flow` one
  of its two directions, `control` what of a connection's own frames it reads itself, `http2` how hyper-h2 is set up,
  `rewriting` changes messages, `answer` writes Loom's own answers, `interception` is whom it asks: `mutation`, which
  applies `rules`.
- `compression` undoes and redoes what messages are compressed by.
- `capture` wires what is kept of them: `recording` has the sinks, `schema` explains messages, by reflection through a
  `tunnel` to the backend. `inspector` shows it over HTTP, `grpcurl` makes a call's command.
- `replay` makes a recorded call again, `comparison` says what came out otherwise, `decoding` reads their messages.
- `config` reads loom.toml, `demo` is a backend with its clients.
- `metrics` counts what `proxy` tells of, `probes` answers /live, /ready, /health and /metrics, and `bootstrap` plugs it
  all together.

Traffic never waits for inspection: the bytes are on their way before they are looked at, and where looking fails, it
stops for that connection, is counted, and the bytes go on.

Nothing here knows the template service, and nothing in `proxy` knows who listens to its events.
"""
