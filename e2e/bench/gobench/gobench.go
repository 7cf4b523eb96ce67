// SPDX-License-Identifier: Apache-2.0

// Package gobench runs benchmarks of Go and reads what they print.
package gobench

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"

	"github.com/kubernetes-sigs/blixt/e2e/bench/report"
)

// Set is benchmarks that are run together.
type Set struct {
	// Benchmarks is what -bench takes.
	Benchmarks string
	Packages   []string
	// Args are further arguments of go test.
	Args []string
}

// Run runs the sets one after the other. What they print is printed too.
func Run(part string, progress io.Writer, sets ...Set) (samples []report.Samples, err error) {
	for _, set := range sets {
		args := append([]string{"test", "-run=^$", "-timeout=30m", "-p=1", "-bench=" + set.Benchmarks}, set.Args...)
		cmd := exec.Command("go", append(args, set.Packages...)...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = io.MultiWriter(&out, progress), os.Stderr
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("go test -bench=%s %s: %w", set.Benchmarks, strings.Join(set.Packages, " "), err)
		}
		found := Parse(part, &out)
		if len(found) == 0 {
			return nil, fmt.Errorf("%s has no benchmark %s", strings.Join(set.Packages, " "), set.Benchmarks)
		}
		samples = append(samples, found...)
	}
	return samples, nil
}

// cpus is what Go adds to a benchmark's name where there are several.
var cpus = regexp.MustCompile(`-\d+$`)

// Parse reads the format of benchmarks: golang.org/design/14313-benchmark-format.
func Parse(part string, in io.Reader) (samples []report.Samples) {
	at := map[[2]string]int{}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) < 4 || !strings.HasPrefix(words[0], "Benchmark") {
			continue
		}
		name := strings.TrimPrefix(cpus.ReplaceAllString(words[0], ""), "Benchmark")
		for i := 2; i+1 < len(words); i += 2 {
			value, err := strconv.ParseFloat(words[i], 64)
			if err != nil {
				break
			}
			key := [2]string{name, words[i+1]}
			n, known := at[key]
			if !known {
				n = len(samples)
				at[key] = n
				samples = append(samples, report.Samples{Part: part, Name: name, Unit: words[i+1]})
			}
			samples[n].Rounds = append(samples[n].Rounds, value)
		}
	}
	return samples
}
