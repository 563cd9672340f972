"""OpenID providers, from outside: their keys over HTTP. Adapters of :class:`broker.ports.keys.IssuerKeys`."""
