// SPDX-License-Identifier: Apache-2.0

//go:build !docs

package manual

var builtin []byte
