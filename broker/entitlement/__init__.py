"""What each agent could get, what it used of that, and what changed since people last looked. Pure."""
