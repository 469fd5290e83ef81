"""A process that saves step after step until it is killed: `python -m tests.engine.saver FOLDER FIRST_STEP`."""

import sys

from ctxjax.checkpoint import Checkpoints
from tests.engine.states import state_of


def main(folder: str, step: int) -> None:
    checkpoints = Checkpoints(folder, keep=2)
    checkpoints.clean()
    while True:
        checkpoints.save(step, state_of(step, rows=4096, width=64), {"config": {}})
        print("saving", step, flush=True)
        checkpoints.wait()
        print("committed", step, flush=True)
        step += 1


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
