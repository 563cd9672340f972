"""What happened, provably: events, records, the hash chain and its verification. Pure."""
