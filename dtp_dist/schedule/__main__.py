"""``python -m dtp_dist.schedule --stages 4 --minibatches 6 --in-flight 4`` draws a schedule."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from dtp_dist.errors import ScheduleError
from dtp_dist.schedule import TWO_WAVES, Flow, Phase, Schedule, draw


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the drawing that the command line asks for; bad values end it with one line and code 2."""
    parser = _Parser("python -m dtp_dist.schedule", description="Draw the schedule of a pipeline.")
    parser.add_argument("--stages", type=int, required=True)
    parser.add_argument("--minibatches", type=int, required=True)
    parser.add_argument("--in-flight", type=int, required=True)
    parser.add_argument("--phase", choices=[phase.value for phase in Phase], default=Phase.BOTH.value)
    parser.add_argument("--one-wave", action="store_true", help="T needs nothing of F, inverses learn in U")
    given = parser.parse_args(arguments)
    if given.minibatches < 0:
        parser.error(f"minibatches is {given.minibatches}; it must be at least 0")
    flow = Flow(inverse_in="U", target_reads_forward=False) if given.one_wave else TWO_WAVES
    minibatches, phase = range(given.minibatches), Phase(given.phase)
    try:
        schedule = Schedule(given.stages, minibatches, given.in_flight, phase, flow)
    except ScheduleError as error:
        parser.error(str(error))
    print(draw(schedule.rows()))


if __name__ == "__main__":
    main()
