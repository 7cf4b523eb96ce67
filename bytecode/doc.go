// SPDX-License-Identifier: Apache-2.0

// Package bytecode publishes the data plane as an OCI bytecode image, and
// gets it back. In comes a compiled object; out goes an image that bpfman
// loads, in a directory or in a registry, signed as cosign signs. The other
// way, in comes the name of a file, a directory or an image; out goes an
// object that is what its labels say and that the keys vouch for.
//
//	object.go needs.go maptype.go   what an object is, read from its ELF
//	size.go btf.go                  other table sizes, without a compiler
//	layer.go build.go               the object as an image
//	load.go layout.go registry.go   where images are kept
//	key.go sign.go bundle.go simple.go verify.go
package bytecode

//go:generate go test -run=^TestContainerfileHasTheLabels$ -update
