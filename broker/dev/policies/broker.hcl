# Policy of the broker's own token, "jit-broker". The mount ${mount} and every role on it belong to
# the broker alone; it can neither configure the engine nor read another mount.

# One token per attempt, through the token role below: orphan (it does not die with ours), not
# renewable, at most an hour, and only with policies named jit-attempt-*.
path "auth/token/create/${token_role}" {
  capabilities = ["update"]
}

# End an attempt by its token's accessor, which is written down before the secret is read.
path "auth/token/revoke-accessor" {
  capabilities = ["update"]
}
path "auth/token/lookup-accessor" {
  capabilities = ["update"]
}

# Shorten a fresh lease to its TTL (so that the login's VALID UNTIL matches), look at one, end one:
# leases of our mount only.
path "sys/leases/renew" {
  capabilities       = ["update"]
  allowed_parameters = { "lease_id" = ["${mount}/creds/*"], "increment" = [] }
}
path "sys/leases/lookup" {
  capabilities       = ["update"]
  allowed_parameters = { "lease_id" = ["${mount}/creds/*"] }
}
path "sys/leases/revoke" {
  capabilities       = ["update"]
  allowed_parameters = { "lease_id" = ["${mount}/creds/*"], "sync" = [] }
}

# The sweep: which leases of our roles are alive? Listing leases is a protected path, hence sudo.
path "sys/leases/lookup/${mount}/creds/*" {
  capabilities = ["list", "sudo"]
}

# Keep what an agent asked for wrapped, for one reader. What is in such a token, this cannot read.
path "sys/wrapping/wrap" {
  capabilities = ["update"]
}

# Keep our own periodic token alive.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}

# What `broker connectors doctor` looks at: whether all this is set up right. None of it changes anything, or shows a
# password, as long as connection_url has {{password}} and not the password itself.
path "sys/capabilities-self" {
  capabilities = ["update"]
}
path "auth/token/roles/${token_role}" {
  capabilities = ["read"]
}
path "sys/policies/acl/jit-attempt-*" {
  capabilities = ["read"]
}
path "sys/mounts/${mount}/tune" {
  capabilities = ["read"]
}
path "${mount}/roles" {
  capabilities = ["list"]
}
path "${mount}/roles/*" {
  capabilities = ["read"]
}
path "${mount}/config/*" {
  capabilities = ["read"]
}
