"""Text from and for people: read with care, shown with care."""
