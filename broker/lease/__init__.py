"""The life of a credential: states, deadlines, backoff, and what a credential is. Pure."""
