// SPDX-License-Identifier: Apache-2.0

//go:build e2e

// Package client tests that backends on other nodes see their clients: over networks
// that route pods and over a tunnel, among the rules that nodes and the switches between
// them have in clusters. docs/client-address.md tells how it works.
package client

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

var (
	long = flag.Bool("long", false, "with all that takes longer")
	dump = flag.Bool("dump", false, "print the packets of each test that fails, as tcpdump shows them on the nodes")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, lab.ErrNotRoot)
		os.Exit(1)
	}
	code := m.Run()
	if err := closeShared(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}
