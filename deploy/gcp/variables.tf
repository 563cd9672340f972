variable "project" {
  description = "The project of the pool's service accounts and of the workload identity pool."
  type        = string
}

variable "broker_spiffe_id" {
  description = "The SPIFFE ID of brokerd. At most 127 bytes: google.subject takes no more."
  type        = string

  validation {
    condition     = startswith(var.broker_spiffe_id, "spiffe://") && length(var.broker_spiffe_id) <= 127
    error_message = "It is spiffe://TRUST-DOMAIN/PATH, of at most 127 bytes."
  }
}

variable "jwt_issuer" {
  description = "The iss of brokerd's JWT-SVIDs (SPIRE: jwt_issuer in server.conf). Google refuses a token without one."
  type        = string

  validation {
    condition     = startswith(var.jwt_issuer, "https://")
    error_message = "Google takes an https:// address. It is never asked: the keys are uploaded."
  }
}

variable "jwks_json" {
  description = "The trust domain's JWT authorities as a JWKS: spire-server bundle show -format spiffe, keys with use jwt-svid only, without use."
  type        = string
}

variable "workload_identity_pool" {
  description = "Its id: 4 to 32 lower-case letters, digits and hyphens."
  type        = string
  default     = "jit-broker"
}

variable "pools" {
  description = "One pool of service accounts per template: see docs/connectors/gcp-pool.md for how many it takes."
  type = map(object({
    prefix = string
    size   = number
    # What every account of the pool may: the role on each bucket. Nothing else is bound.
    buckets = map(set(string))
  }))
  default = {}

  validation {
    condition     = alltrue([for pool in var.pools : can(regex("^[a-z][a-z0-9-]{2,26}$", pool.prefix)) && pool.size >= 1 && pool.size <= 1000])
    error_message = "A prefix is 3 to 27 lower-case letters, digits and hyphens; a size is 1 to 1000."
  }
}

variable "shared_accounts" {
  description = "Service accounts for kind gcp-token that exist already, by email. What they may is bound elsewhere."
  type        = set(string)
  default     = []
}
