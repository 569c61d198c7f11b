"""Let the endpoint on this cluster refuse what is new and finish what it has begun.

New requests get 503 with Retry-After, `/readyz` says no, and items of batches that are not begun
come back as `draining`. Delete or replace the application when nothing is left.

Example:
  ray job submit -- python jobs/drain.py
"""

import sys

from lorid.distributed.cluster import connected
from lorid.distributed.deployments import drain


def main() -> int:
    """Drain the application named on the command line, or `lorid`."""
    with connected():
        drain(*sys.argv[1:2])
    return 0


if __name__ == "__main__":
    sys.exit(main())
