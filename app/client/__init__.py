"""A client of `template.v1.TemplateService`, for the command line, the load test, and programs that build on this.

`TemplateClient` (`templates`) is the whole of it in one object. Beneath it `endpoint` says where the service is and how
it is spoken to, `channel` opens the connections and says what gRPC does by itself (balancing, retries: `retries`),
`watch` follows templates over lost connections, `sync` asks and follows on one stream, `imports` sends many in bounded
messages, `canary` gives a share of calls to a second version, and `errors` are what calls end in. It knows the proto,
and nothing of the service's code.
"""
