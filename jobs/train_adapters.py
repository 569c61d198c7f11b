"""Train the three adapters at the same time and bind them to a triple (stage 3).

Trains only the roles that are missing; a killed run goes on from its newest checkpoints.

Example:
  python jobs/train_adapters.py --config run.yaml
"""

import sys

from lorid.distributed.job import run_job

if __name__ == "__main__":
    sys.exit(run_job(("train",), description=__doc__))
