// SPDX-License-Identifier: Apache-2.0

package bpf

// Object returns a copy of the compiled data plane, an ELF file. It is for
// publishing; LoadBlixt returns what is to be loaded.
func Object() []byte { return []byte(_BlixtBytes) }
