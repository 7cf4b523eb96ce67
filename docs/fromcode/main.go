// SPDX-License-Identifier: Apache-2.0

// Command fromcode writes the documents that are made of code: what a program says and what
// is read about it have one source. It runs in docs.
package main

import (
	"fmt"
	"log"
	"os"
)

// pages are the documents, and what makes each of the tree at root.
var pages = []struct {
	file string
	make func(root string) (string, error)
}{
	{"reference/api.md", apiPage},
	{"reference/values.md", valuesPage},
	{"doctor.md", doctorPage},
	{"reasons.md", reasonsPage},
}

func main() {
	log.SetFlags(0)
	for _, p := range pages {
		text, err := p.make("..")
		if err == nil {
			err = os.WriteFile(p.file, []byte(text), 0o644)
		}
		if err != nil {
			log.Fatal(fmt.Errorf("make docs/%s: %w", p.file, err))
		}
	}
}
