//go:build ignore

// SPDX-License-Identifier: Apache-2.0

// gotest reads `go test -json` and prints what `go test` would, then how many
// tests passed, failed and were skipped, and which took longest. A test may be skipped only because a
// probe found that "kernel lacks: <feature>", or, with -skip=cluster, "cluster
// lacks: <something>", or because a shallow clone has no older version of Blixt to upgrade
// from: "git lacks: <revision>"; any other skip is a failure, as a test that
// quietly did not run proves nothing.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
)

// event is what `go test -json` says of a test, or of a package if Test is empty.
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64 // seconds
}

// printSlowest prints which tests, without those that are parts of others, took longest.
// Whoever has to make CI quicker begins there.
func printSlowest(ended []event) {
	const most, least = 8, 10.0
	slices.SortStableFunc(ended, func(a, b event) int { return cmp.Compare(b.Elapsed, a.Elapsed) })
	for _, e := range ended[:min(most, len(ended))] {
		if e.Elapsed >= least {
			fmt.Printf("%7.0f s  %s of %s\n", e.Elapsed, e.Test, e.Package)
		}
	}
}

func main() {
	lacking := flag.String("skip", "kernel", "who may be said to lack what a skipped test needs")
	flag.Parse()
	reason := ": " + *lacking + " lacks: "
	count := map[string]int{}
	output := map[string]string{} // of the tests that have not passed
	var skips []string
	var ended []event
	bad := false

	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break
		}
		var e event
		if json.Unmarshal([]byte(line), &e) != nil {
			fmt.Print(line)
			continue
		}
		name := e.Package + " " + e.Test
		switch {
		case e.Action == "build-output", e.Action == "output" && e.Test == "":
			if e.Output != "PASS\n" {
				fmt.Print(e.Output)
			}
		case e.Action == "output":
			if !strings.HasPrefix(e.Output, "=== ") {
				output[name] += e.Output
			}
		case e.Test == "" && e.Action == "fail":
			bad = true
			for name, text := range output { // a panic or a timeout: what was running
				if strings.HasPrefix(name, e.Package+" ") {
					fmt.Print(text)
					delete(output, name)
				}
			}
		case e.Test == "":
		case e.Action == "pass", e.Action == "fail", e.Action == "skip":
			count[e.Action]++
			if !strings.Contains(e.Test, "/") {
				ended = append(ended, e)
			}
			if e.Action == "fail" {
				fmt.Print(output[name])
			}
			if e.Action == "skip" {
				if !strings.Contains(output[name], reason) && !strings.Contains(output[name], ": git lacks: ") {
					bad = true
					output[name] += "    not allowed: only `" + reason[2:] + "...` is a reason to skip\n"
				}
				skips = append(skips, output[name])
			}
			delete(output, name)
		}
	}
	for _, text := range skips {
		fmt.Print(text)
	}
	printSlowest(ended)
	fmt.Printf("%d passed, %d failed, %d skipped\n", count["pass"], count["fail"], count["skip"])
	if bad || count["fail"] > 0 || count["pass"] == 0 {
		os.Exit(1)
	}
}
