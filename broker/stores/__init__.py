"""Where state lives: adapters of the ports LeaseStore and AuditSink, and readers of what they stored."""
