"""Every error a user can meet: one clear line each, and the exit code that goes with it."""


def in_one_line(error: BaseException) -> str:
    """Return the class and the text of any exception, line breaks and runs of spaces as one space."""
    return " ".join(f"{type(error).__name__}: {error}".split())


class DtpDistError(Exception):
    """Something went wrong that the user can act on; the command line prints it without a traceback."""

    exit_code = 1


class ConfigError(DtpDistError):
    """The configuration or the call is wrong; names the key, the value and what is allowed."""

    exit_code = 2


class RangeError(ValueError):
    """A value that does not fit; ``key`` is its field's name within its section."""

    def __init__(self, key: str, message: str) -> None:
        self.key = key
        super().__init__(message)


class DataError(DtpDistError):
    """A data set is missing, damaged or does not fit the model."""


class ScheduleError(DtpDistError):
    """A schedule breaks one of its own rules; carries the drawing with the failing action marked."""


class MessageError(DtpDistError):
    """Received bytes are not the message that was due: wrong magic, run, generation, order, kind or size."""


class LinkError(DtpDistError):
    """A link between two stages was lost or did not come up, or a wait on it passed its time limit."""


class Stopped(DtpDistError):  # noqa: N818 - an order, not an error
    """The wait was given up because the run is being stopped; not a failure of its own."""


class NonFiniteError(DtpDistError):
    """A loss or a target became NaN or infinite; names stage, layer, action and minibatch."""


class CallbackError(DtpDistError):
    """A monitor of the user's raised; names its class, its method and the line."""


class StageError(DtpDistError):
    """A stage died, froze or raised; names stage, layers, action and minibatch."""


class StageLostError(StageError):
    """A stage died or froze: what a restart from the newest checkpoint can mend."""


class StartError(StageError):
    """A stage did not start in time or found no room: a restart can mend it where the run has run before."""


class StorageError(DtpDistError):
    """A checkpoint or a run folder is missing, damaged, foreign or held, or could not be written."""
