"""This process and its machine: signals, output, folders, clocks."""
