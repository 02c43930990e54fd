"""What the scripts next to this folder share, as in ``from helpers.measuring import machine``."""
