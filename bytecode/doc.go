// SPDX-License-Identifier: Apache-2.0

// Package bytecode publishes the data plane as an OCI bytecode image, and reads it back.
// To publish, in goes a compiled object; out comes an image that bpfman loads, in a
// directory or in a registry, with signatures as cosign makes them. To read, in goes the
// name of a file, a directory or an image; out comes an object that fits its labels and
// is signed by one of the keys.
//
//	object.go needs.go maptype.go   what an object is, read from its ELF
//	size.go btf.go                  other table sizes, without a compiler
//	layer.go build.go               the object as an image
//	load.go layout.go registry.go   where images are kept
//	key.go sign.go bundle.go simple.go verify.go
//	statement.go attest.go attach.go   what else is stated of an image, and how it is attached
package bytecode

//go:generate go test -run=^TestContainerfileHasTheLabels$ -update
