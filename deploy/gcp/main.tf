# What the connectors gcp-pool and gcp-token need: the broker's identity by federation, its least rights, and pools of
# service accounts that are bound beforehand, because the broker may not bind anything.

terraform {
  required_version = ">= 1.5"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.0, < 8"
    }
  }
}

provider "google" {
  project = var.project
}

locals {
  accounts = merge([
    for name, pool in var.pools : {
      for number in range(pool.size) : format("%s%03d", pool.prefix, number) => name
    }
  ]...)

  bindings = merge([
    for id, name in local.accounts : merge([
      for bucket, roles in var.pools[name].buckets : {
        for role in roles : "${id} ${bucket} ${role}" => { account = id, bucket = bucket, role = role }
      }
    ]...)
  ]...)

  broker = "principal://iam.googleapis.com/${google_iam_workload_identity_pool.broker.name}/subject/${var.broker_spiffe_id}"
}

resource "google_project_service" "needed" {
  for_each           = toset(["iam.googleapis.com", "iamcredentials.googleapis.com", "sts.googleapis.com"])
  service            = each.value
  disable_on_destroy = false
}

# --------------------------------------------------------------------------- who the broker is

resource "google_iam_workload_identity_pool" "broker" {
  workload_identity_pool_id = var.workload_identity_pool
  display_name              = "jit-broker"
  description               = "brokerd, by its JWT-SVID. No key is kept anywhere."
  depends_on                = [google_project_service.needed]
}

resource "google_iam_workload_identity_pool_provider" "spiffe" {
  workload_identity_pool_id          = google_iam_workload_identity_pool.broker.workload_identity_pool_id
  workload_identity_pool_provider_id = "spiffe"
  attribute_mapping                  = { "google.subject" = "assertion.sub" }
  # One workload of the trust domain, and no other: without this every JWT-SVID of it would be a principal.
  attribute_condition = "assertion.sub == '${var.broker_spiffe_id}'"

  oidc {
    issuer_uri = var.jwt_issuer
    # Uploaded, so that Google need not reach the trust domain. Apply again when its JWT authority changes.
    jwks_json = var.jwks_json
  }
}

# --------------------------------------------------------------------------- what it may

# No roles/iam.serviceAccountTokenCreator: that one also signs blobs and JWTs, which outlive any token.
resource "google_project_iam_custom_role" "lend" {
  role_id     = "jitBrokerLend"
  title       = "jit-broker: lend a service account"
  description = "Impersonate it for a token, disable and enable it, and look at it. Granted on accounts, never on the project."
  permissions = [
    "iam.serviceAccounts.getAccessToken",
    "iam.serviceAccounts.disable",
    "iam.serviceAccounts.enable",
    "iam.serviceAccounts.get",
    "iam.serviceAccounts.getIamPolicy",
    "iam.serviceAccountKeys.list",
  ]
}

resource "google_project_iam_custom_role" "impersonate" {
  role_id     = "jitBrokerImpersonate"
  title       = "jit-broker: tokens of a service account"
  description = "Impersonate it for a token, and look whether somebody made keys for it."
  permissions = ["iam.serviceAccounts.getAccessToken", "iam.serviceAccountKeys.list"]
}

resource "google_service_account_iam_member" "lend" {
  for_each           = local.accounts
  service_account_id = google_service_account.lent[each.key].name
  role               = google_project_iam_custom_role.lend.id
  member             = local.broker
}

resource "google_service_account_iam_member" "impersonate" {
  for_each           = var.shared_accounts
  service_account_id = "projects/-/serviceAccounts/${each.value}"
  role               = google_project_iam_custom_role.impersonate.id
  member             = local.broker
}

# --------------------------------------------------------------------------- what is lent

resource "google_service_account" "lent" {
  for_each     = local.accounts
  account_id   = each.key
  display_name = "jit-broker, pool ${each.value}"
  description  = "Lent to one lease at a time. Whether it is enabled is the broker's business."

  lifecycle {
    # The broker disables and enables it; an apply must not.
    ignore_changes = [disabled]
  }
}

resource "google_storage_bucket_iam_member" "lent" {
  for_each = local.bindings
  bucket   = each.value.bucket
  role     = each.value.role
  member   = google_service_account.lent[each.value.account].member
}

# For `broker connectors doctor`, which looks whether every account is bound: storage.buckets.getIamPolicy.
resource "google_project_iam_custom_role" "look" {
  role_id     = "jitBrokerLook"
  title       = "jit-broker: who has roles on a bucket"
  permissions = ["storage.buckets.getIamPolicy"]
}

resource "google_storage_bucket_iam_member" "look" {
  for_each = toset(flatten([for pool in var.pools : keys(pool.buckets)]))
  bucket   = each.value
  role     = google_project_iam_custom_role.look.id
  member   = local.broker
}
