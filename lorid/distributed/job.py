"""What every job in jobs/ shares: its arguments, its one-line errors and its exit codes.

    if __name__ == "__main__":
        sys.exit(run_job(("knowledge",), description=__doc__))

Exit codes: 0 done, 2 the user's mistake, 3 the cap on money is reached (a higher one goes on), 130
interrupted, 1 anything else.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from lorid.artifacts.configs import open_config
from lorid.distributed.pipeline import run_pipeline
from lorid.distributed.retries import next_retry
from lorid.errors import LoridError

INTERRUPTED = 130


def run_job(stages: Sequence[str], *, description: str | None) -> int:
    """Parse the command line, run the stages, and return the exit code."""
    summary, _, epilog = (description or "").partition("\n\n")
    parser = argparse.ArgumentParser(
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
    try:
        config = open_config(args.config, preset=args.preset, overrides=args.overrides)
        if getattr(args, "retry_rejects", False):
            config = next_retry(config, announce=lambda line: print(line, file=sys.stderr))
        run_pipeline(config, stages=stages)
    except LoridError as error:
        if args.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        # Threads of an interrupted stage may still wait for Ray; what is finished is published.
        print("interrupted: finished stages are kept, run again to resume", file=sys.stderr)
        sys.stderr.flush()
        os._exit(INTERRUPTED)
    return 0


def interrupt_on_sigterm() -> None:
    """Make a polite kill what Ctrl-C is, so that Ray's processes end with this one."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
