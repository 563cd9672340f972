"""What of published frameworks the broker serves, control by control, as data. Pure."""
