"""What data of a user's own are made of: files as rows, targets as labels, and splits that are cut."""
