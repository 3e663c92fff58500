"""`python -m auricle` is the command `auricle`."""

import sys

from auricle.cli import main

sys.exit(main())
