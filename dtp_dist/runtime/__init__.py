"""Running schedules: one executor for every runtime, and the runtimes by name (``runtime.registry``)."""
