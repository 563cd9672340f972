"""Makes sure that every lease ends."""
