"""What runs inside a stage's process, whichever runtime started it."""
