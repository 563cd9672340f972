# The broker's own role, in the account that brokerd belongs to. It may assume the roles it is told of, and nothing else.
# brokerd gets a session of it by its JWT-SVID (web_identity in connectors.yaml), so that no key is kept anywhere.

terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "issuer" {
  description = "Issuer of the trust domain's JWT-SVIDs: https, without a port, with SPIRE's OIDC discovery provider behind it."
  type        = string

  validation {
    condition     = can(regex("^https://[a-z0-9.-]+(/[A-Za-z0-9._/-]*)?$", var.issuer))
    error_message = "Must be https://host[/path], without a port."
  }
}

variable "spiffe_id" {
  description = "brokerd's own SPIFFE ID: what the token's sub must be, exactly."
  type        = string

  validation {
    condition     = can(regex("^spiffe://[a-z0-9._-]+/[A-Za-z0-9._/-]+$", var.spiffe_id))
    error_message = "Must be a SPIFFE ID, without a wildcard."
  }
}

variable "audience" {
  description = "What the token must be for, as in web_identity.audience of the connector."
  type        = string
  default     = "sts.amazonaws.com"
}

variable "target_role_arns" {
  description = "The roles that templates name, and the revokers in their accounts. No wildcard."
  type        = list(string)

  validation {
    condition     = length(var.target_role_arns) > 0 && alltrue([for arn in var.target_role_arns : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]+$", arn))])
    error_message = "Each must be the ARN of one role, without a wildcard."
  }
}

variable "name" {
  description = "Name of the role."
  type        = string
  default     = "jit-broker"
}

locals {
  issuer = trimprefix(var.issuer, "https://")
}

resource "aws_iam_openid_connect_provider" "trust_domain" {
  url            = var.issuer
  client_id_list = [var.audience]
}

data "aws_iam_policy_document" "trust" {
  statement {
    sid     = "BrokerdByItsJwtSvid"
    actions = ["sts:AssumeRoleWithWebIdentity"]

    principals {
      type        = "Federated"
      identifiers = [aws_iam_openid_connect_provider.trust_domain.arn]
    }

    condition {
      test     = "StringEquals"
      variable = "${local.issuer}:sub"
      values   = [var.spiffe_id]
    }

    condition {
      test     = "StringEquals"
      variable = "${local.issuer}:aud"
      values   = [var.audience]
    }
  }
}

data "aws_iam_policy_document" "rights" {
  statement {
    sid       = "SessionsOfTheRolesItIsToldOf"
    actions   = ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]
    resources = var.target_role_arns
  }
}

resource "aws_iam_role" "broker" {
  name                 = var.name
  assume_role_policy   = data.aws_iam_policy_document.trust.json
  max_session_duration = 3600
}

resource "aws_iam_role_policy" "rights" {
  name   = "sessions"
  role   = aws_iam_role.broker.id
  policy = data.aws_iam_policy_document.rights.json
}

output "role_arn" {
  description = "For web_identity.role_arn in connectors.yaml, and for the target module."
  value       = aws_iam_role.broker.arn
}
