"""Rules whose signal comes down by other maps than the layers' inverses."""
