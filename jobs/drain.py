"""Let the endpoint on this cluster refuse what is new and finish what it has begun.

New requests get 503 with Retry-After, `/readyz` says no, and items of batches that are not begun
come back as `draining`. Delete or replace the application when nothing is left.

Example:
  ray job submit -- python jobs/drain.py
"""

import argparse
import sys

from lorid.distributed.cluster import connected
from lorid.distributed.deployments import APP_NAME, drain
from lorid.distributed.job import JobParser
from lorid.errors import LoridError


def main() -> int:
    """Drain one application; returns the exit code."""
    parser = JobParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--app", default=APP_NAME, help="the application's name")
    arguments = parser.parse_args()
    try:
        with connected():
            drain(arguments.app)
    except LoridError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
