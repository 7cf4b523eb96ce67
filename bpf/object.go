// SPDX-License-Identifier: Apache-2.0

package bpf

import "bytes"

// Object returns a copy of the compiled data plane, an ELF file. It is for
// publishing; LoadBlixt returns what is to be loaded.
func Object() []byte { return bytes.Clone(_BlixtBytes) }
