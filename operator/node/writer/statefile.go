// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Record is the content of the state file: the names and weights for which the
// maps have no place. It is valid only while its hash is the one in the maps.
type Record struct {
	Version lb.Version `json:"version"`
	Hash    string     `json:"hash"`
	Time    time.Time  `json:"time"`
	State   lb.State   `json:"state"`
}

// LoadRecord reads a state file. It returns an empty record if the file does
// not exist, or path is "".
func LoadRecord(path string) (Record, error) {
	var r Record
	if path == "" {
		return r, nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("read state file: %w", err)
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("read state file %s: %w", path, err)
	}
	return r, nil
}

// save replaces the file atomically: a reader sees the previous content or the
// new one.
func (r Record) save(path string) error {
	if path == "" {
		return nil
	}
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write state file: %w", err)
	}
	if err := renameio.WriteFile(path, text, 0o644, renameio.WithTempDir(filepath.Dir(path)), renameio.IgnoreUmask()); err != nil {
		return fmt.Errorf("write state file: %w", err)
	}
	return nil
}
