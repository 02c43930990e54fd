"""What TensorBoard shows of a run, written by the driver alone."""
