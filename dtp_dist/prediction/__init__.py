"""What a trained network makes of new examples: read as its data are, shown as its labels are."""
