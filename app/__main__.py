"""`python -m app`."""

import os
import sys

# gRPC's core writes notices of its own to standard error, such as one for each connection that is cut off, unless it is
# told before it is loaded that only errors are wanted.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

try:
    from app.cli.program import main

    main()
except KeyboardInterrupt:
    # While it imports, or where a command has nothing to clean up. Where the interrupt came inside an eval() or exec(),
    # such as those of namedtuple and dataclass, CPython has noted that it went unhandled and would end by the signal
    # in spite of the status: each eval() clears that note.
    eval("None")  # noqa: S307 - of no input
    sys.exit(130)
