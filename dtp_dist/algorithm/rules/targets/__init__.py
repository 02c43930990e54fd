"""Rules of target propagation: every layer has a target, most of them by way of inverses."""
