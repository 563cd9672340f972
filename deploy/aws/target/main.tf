# One role that agents get sessions of, and, per account, the role by which the broker revokes them.
# The boundary is what keeps the revoker, which may write the role's inline policies, from widening it: the broker can
# change neither the boundary nor the policy that it is.

terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "broker_role_arn" {
  description = "Output role_arn of the broker module."
  type        = string
}

variable "external_id" {
  description = "As in the connector's settings: one per tenant, made by whoever runs the broker. No secret."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9_+=,.@:/-]{2,1224}$", var.external_id))
    error_message = "2 to 1224 of the characters that AssumeRole takes."
  }
}

variable "role_name" {
  description = "The role that templates name. Everything by which the broker revokes is bound to this path and name."
  type        = string
}

variable "rights_json" {
  description = "The widest that any template of this role needs, as an IAM policy: sessions get an intersection with it."
  type        = string
}

variable "boundary_json" {
  description = "What the role can never go beyond, whatever is written into it, as an IAM policy. May be the same."
  type        = string
}

variable "revoker_name" {
  description = "As in revocation.role_name of the connector."
  type        = string
  default     = "jit-broker-revoker"
}

resource "aws_iam_policy" "boundary" {
  name   = "${var.role_name}-boundary"
  policy = var.boundary_json
}

data "aws_iam_policy_document" "trust" {
  statement {
    sid     = "TheBrokerAlone"
    actions = ["sts:AssumeRole"]

    principals {
      type        = "AWS"
      identifiers = [var.broker_role_arn]
    }

    condition {
      test     = "StringEquals"
      variable = "sts:ExternalId"
      values   = [var.external_id]
    }
  }

  # Of no use without the first; they know no sts:ExternalId.
  statement {
    sid     = "WithTagsAndASourceIdentity"
    actions = ["sts:TagSession", "sts:SetSourceIdentity"]

    principals {
      type        = "AWS"
      identifiers = [var.broker_role_arn]
    }
  }
}

resource "aws_iam_role" "target" {
  name                 = var.role_name
  assume_role_policy   = data.aws_iam_policy_document.trust.json
  permissions_boundary = aws_iam_policy.boundary.arn
  max_session_duration = 3600

  # No inline_policy blocks and no aws_iam_role_policies_exclusive: both would delete the broker's Denies.
}

resource "aws_iam_policy" "rights" {
  name   = "${var.role_name}-rights"
  policy = var.rights_json
}

resource "aws_iam_role_policy_attachment" "rights" {
  role       = aws_iam_role.target.name
  policy_arn = aws_iam_policy.rights.arn
}

data "aws_iam_policy_document" "revoker_trust" {
  statement {
    sid     = "TheBrokerAlone"
    actions = ["sts:AssumeRole"]

    principals {
      type        = "AWS"
      identifiers = [var.broker_role_arn]
    }

    condition {
      test     = "StringEquals"
      variable = "sts:ExternalId"
      values   = [var.external_id]
    }
  }
}

data "aws_iam_policy_document" "revoker" {
  statement {
    sid = "InlinePoliciesOfTheTargetWhileItIsBounded"
    actions = [
      "iam:DeleteRolePolicy",
      "iam:PutRolePolicy",
    ]
    resources = [aws_iam_role.target.arn]

    # Without its boundary the role is out of the revoker's hands.
    condition {
      test     = "StringEquals"
      variable = "iam:PermissionsBoundary"
      values   = [aws_iam_policy.boundary.arn]
    }
  }

  statement {
    sid = "LookingAtTheTarget"
    actions = [
      "iam:GetRole",
      "iam:GetRolePolicy",
      "iam:ListRolePolicies",
    ]
    resources = [aws_iam_role.target.arn]
  }

  statement {
    sid       = "AskingWhatItMayDoItself"
    actions   = ["iam:SimulatePrincipalPolicy"]
    resources = [aws_iam_role.revoker.arn]
  }
}

resource "aws_iam_role" "revoker" {
  name                 = var.revoker_name
  assume_role_policy   = data.aws_iam_policy_document.revoker_trust.json
  max_session_duration = 3600
}

resource "aws_iam_role_policy" "revoker" {
  name   = "${var.role_name}-denies"
  role   = aws_iam_role.revoker.id
  policy = data.aws_iam_policy_document.revoker.json
}

output "role_arns" {
  description = "For target_role_arns of the broker module, and examined_roles of the connector (the first of them)."
  value       = [aws_iam_role.target.arn, aws_iam_role.revoker.arn]
}
