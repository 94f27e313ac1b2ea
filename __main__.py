"""`python -m heatlas`: the same as the `heatlas` command."""

import sys

from heatlas.pipeline.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
