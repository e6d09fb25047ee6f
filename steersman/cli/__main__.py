"""`python -m steersman.cli`."""

import sys

from steersman.cli import main

if __name__ == "__main__":
    sys.exit(main())
