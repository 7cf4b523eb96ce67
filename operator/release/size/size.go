// SPDX-License-Identifier: Apache-2.0

// Package size keeps blixt's binary small, and finds out what has made it large.
package size

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
)

// Limit is how large a stripped binary may be, in bytes, for each architecture, with the
// documentation in it. Of the code 20 % are kinds of Kubernetes that Blixt does not read, and
// 12 % those that it does: controller-runtime imports client-go's typed clients, each of
// these its kinds, and each package of kinds registers all of them as it is initialized, so
// that the linker can leave out none. The binary would have 8.8 MB less without those that are
// not read, and 4.3 MB less than that without the protobuf code of the others, as was measured
// with client-go cut down: neither can be had with controller-runtime as it is.
const Limit = 56_000_000

// Check returns an error if a binary is larger than Limit.
func Check(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() > Limit {
		return fmt.Errorf("%s has %d bytes, at most %d are allowed: go test ./operator/release/size says why", path, info.Size(), Limit)
	}
	return nil
}

// marks are what the linker writes behind the names of symbols.
var marks = regexp.MustCompile(`( <(UsedInIface|ReflectMethod)>)+$`)

// Reflected returns how a program comes to call methods by names that are known at run time only,
// as a path of symbols from its beginning; nil: it does not. The linker keeps every exported
// method of such a program. dump is what the linker prints with -dumpdep: for each symbol, by
// which other one it was reached first.
func Reflected(dump io.Reader) (path []string, err error) {
	by, found := map[string]string{}, ""
	lines := bufio.NewScanner(dump)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		from, to, is := strings.Cut(lines.Text(), " -> ")
		if !is {
			continue
		}
		symbol := marks.ReplaceAllString(to, "")
		if by[symbol] == "" {
			by[symbol] = marks.ReplaceAllString(from, "")
		}
		if found == "" && strings.Contains(strings.TrimPrefix(to, symbol), "ReflectMethod") {
			found = symbol
		}
	}
	for symbol := found; symbol != "" && !slices.Contains(path, symbol); symbol = by[symbol] {
		path = append(path, symbol)
	}
	slices.Reverse(path)
	return path, lines.Err()
}
