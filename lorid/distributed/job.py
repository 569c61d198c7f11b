"""What every job in jobs/ shares: its arguments, its one-line errors and its exit codes.

    if __name__ == "__main__":
        sys.exit(run_job(("knowledge",), description=__doc__))

Exit codes: 0 done, 2 the user's mistake, 3 the cap on money is reached (a higher one goes on), 130
interrupted, 1 anything else.
"""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from lorid.artifacts.configs import open_config
from lorid.config import RunConfig
from lorid.distributed.pipeline import run_pipeline
from lorid.distributed.retries import next_retry
from lorid.errors import LoridError
from lorid.interrupts import (
    INTERRUPTED,
    interrupt_on_sigterm,
    leave,
    repeat_lost_interrupts,
)

# After which stage comes what; `given` are this job's own arguments.
NEXT: Mapping[str, Sequence[str]] = {
    "prepare": ("python jobs/generate_knowledge.py {given}",),
    "knowledge": ("python jobs/train_adapters.py {given}",),
    "train": ("python jobs/evaluate.py {given}",),
    "report": (
        "lorid report {name} --store {store} -o report",
        "serve run serve.app:build run={store}#{name}",
    ),
}


class JobParser(argparse.ArgumentParser):
    """argparse, whose errors are one line as everywhere in lorid."""

    def error(self, message: str) -> NoReturn:
        """Say it without the usage, and leave with 2."""
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def run_job(stages: Sequence[str], *, description: str | None) -> int:
    """Parse the command line, run the stages, and return the exit code."""
    summary, _, epilog = (description or "").partition("\n\n")
    parser = JobParser(
        description=summary, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", metavar="FILE", help="YAML or JSON config of the run; s3://bucket/run.yaml too"
    )
    parser.add_argument("--preset", metavar="NAME", help="start from a preset, such as demo")
    parser.add_argument(
        "--set", action="append", default=[], metavar="a.b=c", dest="overrides",
        help="change one field; may be repeated",
    )  # fmt: skip
    if tuple(stages) == ("knowledge",):
        parser.add_argument(
            "--retry-rejects", action="store_true",
            help="ask again, only for the problems that the last run set aside",
        )  # fmt: skip
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    args = parser.parse_args()
    if not args.config and not args.preset:
        parser.error("give --config FILE, or --preset demo to try it")
    interrupt_on_sigterm()
    repeat_lost_interrupts()
    try:
        config = open_config(args.config, preset=args.preset, overrides=args.overrides)
        if getattr(args, "retry_rejects", False):
            config = next_retry(config, announce=lambda line: print(line, file=sys.stderr))
        run_pipeline(config, stages=stages)
        _say_next(config, after=stages[-1])
    except LoridError as error:
        if args.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        # Threads of an interrupted stage may still wait for Ray; what is finished is published.
        print("interrupted: finished stages are kept, run again to resume", file=sys.stderr)
        leave(INTERRUPTED)
    return 0


def _say_next(config: RunConfig, *, after: str) -> None:
    given = shlex.join(argument for argument in sys.argv[1:] if argument != "--retry-rejects")
    for line in NEXT.get(after, ()):
        told = line.format(given=given, name=config.name, store=config.store)
        print(f"next: {told}", file=sys.stderr)
