"""The command line: thin; every error is one line and an exit code."""

from dtp_dist import import_path

TYPE_CHECKING = False  # of typing, which a file of that name in the working directory could hide here

if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["main"]


def main() -> "NoReturn":
    """Run the command line; until the path is settled, nothing is imported that could be another module."""
    import_path.settle()
    from dtp_dist.cli.main import main as run

    run()
