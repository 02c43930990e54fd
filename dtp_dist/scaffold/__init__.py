"""A first configuration for data of one's own, from what lies in a folder."""
