"""Moving the bytes between client and backend, and telling what calls they are."""
