"""The template service's object wiring: the only place where its parts are made and plugged together.

`runtime` wires the whole, and says who closes what: `read_path` the cache before the database, `changes` what the
database announces, `grpc` the gRPC server.
"""
