// SPDX-License-Identifier: Apache-2.0

//go:build docs

package manual

import _ "embed"

// Releases put it here before they build.
//
//go:embed site.zip
var builtin []byte
