// SPDX-License-Identifier: Apache-2.0

// Package sigstore publishes releases with keys and without, and has cosign itself verify
// them. What signs without keys, a CA that believes an OpenID issuer and a time stamp
// authority, runs here: Fulcio's and the authority's own servers.
package sigstore
