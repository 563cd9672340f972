"""Several real brokerd on one real PostgreSQL, under load, while one of them, the network or the server fails."""
