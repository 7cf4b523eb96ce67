// SPDX-License-Identifier: Apache-2.0

// Package wire is what both ends of the stream between operator and agents
// share: the messages, generated from fleet.proto, and their conversion from
// and to the nouns of gateway and lb. Package fleet is the operator's end,
// package agent the node's.
package wire

// protoc writes its version into what it generates: Debian 13 has 3.21.
//
//go:generate sh -c "protoc --plugin=protoc-gen-go=$(go tool -n protoc-gen-go) --plugin=protoc-gen-go-grpc=$(go tool -n protoc-gen-go-grpc) --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative fleet.proto observe.proto"
