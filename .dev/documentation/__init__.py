"""What makes the documentation: the book out of `docs/`, and the pages of `docs/reference/` out of the code."""
