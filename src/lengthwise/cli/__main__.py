"""`python -m lengthwise.cli` is the command `lengthwise`."""

import sys

from lengthwise.cli import main

sys.exit(main())
