"""``python -m dtp_dist`` is ``dtp-dist``."""

from dtp_dist.cli import main

main()
