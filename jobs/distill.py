"""Distil a teacher's knowledge into a student by LoRID: all stages, from problems to a report.

  prepare    problems of both splits, from a hub, from files or from the demo's generator
  knowledge  Ray Data: the teacher reads question + rationale, writes the general rules
  train      Ray Train: three adapters of one student, at the same time
               intuitive reasoner   question             -> rationale, answer
               knowledge generator  question             -> knowledge
               deep reasoner        question + knowledge -> rationale, answer
  evaluate   Ray Serve: the graph answers the test split over HTTP by mutual feedback
  report     what each part contributed, as HTML and on the terminal

Every stage leaves an artifact with a record in the store (a folder or s3://bucket/prefix) and is
skipped when its record matches, so running this again resumes it. `lorid plan` says beforehand what
it takes, `lorid runs show` afterwards what came from what. The stages are the functions of
lorid/distributed/pipeline.py; docs/architecture.md draws them.

Examples:
  python jobs/distill.py --preset demo
  python jobs/distill.py --config run.yaml --set training.rank=64 --set store=s3://bucket/lorid
  ray job submit --working-dir . -- python jobs/distill.py --config run.yaml
"""

import sys

from lorid.distributed.job import run_job

STAGES = ("prepare", "knowledge", "train", "evaluate", "report")

if __name__ == "__main__":
    sys.exit(run_job(STAGES, description=__doc__))
