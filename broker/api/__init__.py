"""The gRPC door: servicers, TLS, interceptors, errors as statuses, messages as values."""
