// SPDX-License-Identifier: Apache-2.0

package bpfman

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/kubernetes-sigs/blixt/operator/node/loader"
)

// Leftovers returns the programs that bpfman holds for a name, by its record, and how
// to remove them. The caller holds the lock of the name.
func Leftovers(runDir, name string) (left []loader.Leftover, err error) {
	r, err := readRecord(runDir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d := &Loader{Options: Options{Name: name, RunDir: runDir, Socket: r.Socket}}
	programs := []held{r.held}
	for _, p := range r.Previous {
		programs = append(programs, p.held)
	}
	for _, h := range programs {
		left = append(left, loader.Leftover{
			What:   fmt.Sprintf("program %d of bpfman, and its links", h.Program),
			Remove: func() error { return d.unload(&h) },
		})
	}
	return append(left, loader.Leftover{
		What:   "the file " + recordPath(runDir, name),
		Remove: func() error { return removeRecord(runDir, name) },
	}), nil
}

// Holds reports whether bpfman has loaded a program.
func Holds(program uint32) bool {
	_, err := os.Stat(fmt.Sprintf("%s/maps/%d", pins, program))
	return err == nil
}
