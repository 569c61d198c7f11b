"""Ask the triple every question that no log has, mark all of it, write the report (stages 4 and 5).

Every attempt is logged as it comes: after a stop the same command asks the rest, and another rule
or grader marks the log again without a model (docs/evaluate.md).

Example:
  python jobs/evaluate.py --config run.yaml
"""

import sys

from lorid.distributed.job import run_job

if __name__ == "__main__":
    sys.exit(run_job(("evaluate", "report"), description=__doc__))
