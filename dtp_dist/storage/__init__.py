"""What is kept on disk: run folders, checkpoints, exported networks; each written whole or not at all."""
