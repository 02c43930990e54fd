"""The data sets, one file each, or one for those that share a format."""
