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
    # While it imports, or where a command has nothing to clean up.
    sys.exit(130)
