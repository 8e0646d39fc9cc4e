"""``python -m gantailor.cli``."""

import sys

from gantailor.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
