# Policy of one attempt's token, "jit-attempt-${role}": read one login of one role, nothing else.
# Whoever stole this token could make one more login; it would die with the token.
path "${mount}/creds/${role}" {
  capabilities = ["read"]
}
