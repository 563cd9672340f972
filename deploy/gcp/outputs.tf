output "audience" {
  description = "settings.credentials.federation.audience of the connectors."
  value       = "//iam.googleapis.com/${google_iam_workload_identity_pool_provider.spiffe.name}"
}

output "broker_principal" {
  description = "As whom brokerd appears in IAM policies and audit logs."
  value       = local.broker
}

output "connectors_yaml" {
  description = "What goes into connectors.yaml for the pools."
  value = yamlencode({
    connectors = {
      gcp = {
        kind = "gcp-pool"
        settings = {
          credentials = { federation = { audience = "//iam.googleapis.com/${google_iam_workload_identity_pool_provider.spiffe.name}" } }
          project     = var.project
          pools = {
            for name, pool in var.pools : name => { prefix = pool.prefix, size = pool.size, buckets = keys(pool.buckets) }
          }
        }
      }
    }
  })
}
