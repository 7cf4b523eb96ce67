// SPDX-License-Identifier: Apache-2.0

package bpf

import "bytes"

// Object returns a copy of the compiled data plane, an ELF file: what is to
// be published, where LoadBlixt is what is to be loaded.
func Object() []byte { return bytes.Clone(_BlixtBytes) }
