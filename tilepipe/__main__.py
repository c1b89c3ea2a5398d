"""The command line as a module: `python -m tilepipe` is `tilepipe`."""

import sys

from tilepipe.cli.main import main

sys.exit(main())
