"""Serve the triple, grade the test split through HTTP, write the report (stages 4 and 5).

Every attempt is logged, so that `lorid replay` can judge it again under any rule.

Example:
  python jobs/evaluate.py --config run.yaml
"""

import sys

from lorid.distributed.job import run_job

if __name__ == "__main__":
    sys.exit(run_job(("evaluate", "report"), description=__doc__))
