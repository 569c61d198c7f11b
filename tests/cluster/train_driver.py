"""A driver that may be killed: trains what is missing in a store; run as a process by tests.

RAY_ADDRESS=... python train_driver.py CONFIG
"""

import sys
from pathlib import Path

from lorid.config import parse_config
from lorid.distributed.cluster import connected
from lorid.distributed.opening import open_run
from lorid.distributed.pipeline import train
from lorid.errors import LoridError


def main() -> None:
    config = parse_config(Path(sys.argv[1]).read_text())
    with connected():
        try:
            train(open_run(config, announce=lambda line: print(line, flush=True)))
        except LoridError as error:
            print(f"error: {error}", flush=True)
            raise SystemExit(error.exit_code) from error


if __name__ == "__main__":
    main()
