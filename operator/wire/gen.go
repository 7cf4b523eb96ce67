// SPDX-License-Identifier: Apache-2.0

// Package wire is what both ends of the stream between operator and agents
// share: the messages, generated from fleet.proto, and their conversion from
// and to the nouns of gateway and lb. Package fleet is the operator's end,
// package agent the node's.
package wire

// protoc writes its version into what it generates: Debian 13 has 3.21.
