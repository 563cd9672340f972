"""Who is asking: SPIFFE IDs, SVID validation, the agent registry. Pure."""
