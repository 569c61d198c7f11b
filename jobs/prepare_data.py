"""Prepare the problems of both splits (stage 1 of jobs/distill.py).

Rows that cannot be read are set aside with their number and the reason.

Example:
  python jobs/prepare_data.py --config run.yaml
"""

import sys

from lorid.distributed.job import run_job

if __name__ == "__main__":
    sys.exit(run_job(("prepare",), description=__doc__))
