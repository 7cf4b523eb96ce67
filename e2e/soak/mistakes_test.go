// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package soak

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// mistakes returns all kinds. To add one: say what it touches, whose connections may
// break by it (best: nobody's), how it is made and how it is mended.
func mistakes() []mistake { return slices.Concat(fileMistakes, networkMistakes, processMistakes) }

var (
	spareOnly = []string{"spare"}
	nobody    []string
)

// pick returns one of several things.
func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// script is a mistake that a script on the balancer makes, and another one mends. Each
// VALUE in it is one of the values.
func script(do, mend string, values ...string) func(*host, *rand.Rand) (string, func() error, error) {
	return func(h *host, r *rand.Rand) (string, func() error, error) {
		value := ""
		if len(values) > 0 {
			value = pick(r, values...)
		}
		do, mend := strings.ReplaceAll(do, "VALUE", value), strings.ReplaceAll(mend, "VALUE", value)
		return fmt.Sprintf("%q", do), func() error { return h.shell(mend) }, h.shell(do)
	}
}
