"""Let the teacher write knowledge for the training problems (stage 2).

Needs the data artifact of jobs/prepare_data.py in the same store.

Example:
  python jobs/generate_knowledge.py --config run.yaml
  python jobs/generate_knowledge.py --config run.yaml --retry-rejects
"""

import sys

from lorid.distributed.job import run_job

if __name__ == "__main__":
    sys.exit(run_job(("knowledge",), description=__doc__))
