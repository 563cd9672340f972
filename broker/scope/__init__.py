"""What may be asked: scope templates, typed parameters, and the typed scope one request is bound to. Pure."""
