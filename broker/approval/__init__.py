"""Who else must say yes: what people decide about one access request, and what their yes is bound to. Pure."""
