// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"flag"
	"time"
)

// long has tests done that take minutes, and those for which minutes matter.
var long = flag.Bool("long", false, "test too what takes long")

// outageTime returns how long the API server is away.
func outageTime() time.Duration {
	if *long {
		return 2 * time.Minute
	}
	return 30 * time.Second
}
