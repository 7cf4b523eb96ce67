// SPDX-License-Identifier: Apache-2.0

//go:build e2e

// Package soak makes mistakes on a host that serves, one after the other, and checks
// that nobody notices who has nothing to do with them. Which mistakes, when and how
// follows from a seed alone. make soak runs it.
package soak

import (
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

func TestMain(m *testing.M) { labtest.Main(m) }
