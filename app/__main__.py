"""`python -m app`."""

import sys

try:
    from app.cli.program import main

    main()
except KeyboardInterrupt:
    # While it imports, or where a command has nothing to clean up.
    sys.exit(130)
