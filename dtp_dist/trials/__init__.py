"""Several runs in one folder, each an ordinary one: what became of them, and the workers that train them."""
