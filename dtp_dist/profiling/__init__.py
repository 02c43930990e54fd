"""What layers and links cost here, and what is worked out from it: devices, stages, partition."""
