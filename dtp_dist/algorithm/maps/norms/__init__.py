"""Normalisations as maps, and what leads back through them."""
