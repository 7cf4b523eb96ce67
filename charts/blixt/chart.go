// SPDX-License-Identifier: Apache-2.0

// Package chart has files of the Helm chart that commands know, too.
package chart

import "embed"

// Admission are the ValidatingAdmissionPolicies, in files/admission.
//
//go:embed files/admission/*.yaml
var Admission embed.FS
