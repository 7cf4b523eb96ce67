// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The release of Gateway API in folder gateway-api, and what go.sum would have of it.
const (
	gatewayAPIVersion = "v1.7.0"
	gatewayAPISum     = "h1:duVnm7nO6oXfMMUWfcDoBph47CYR/ME3NGxccOVglaY="
)

// published returns an error unless the copies in a folder are files of the module whose sum
// is given. Its file module.sums has the digests of all files of the module, in the order and
// in the form in which Go makes a sum of them (golang.org/x/mod/sumdb/dirhash.Hash1).
func published(folder, version, sum string) error {
	sums, err := os.ReadFile(filepath.Join(folder, "module.sums"))
	if err != nil {
		return err
	}
	digest := sha256.Sum256(sums)
	if got := "h1:" + base64.StdEncoding.EncodeToString(digest[:]); got != sum {
		return fmt.Errorf("%s/module.sums is of a module with sum %s, not of Gateway API %s, which has %s: run %[1]s/update", folder, got, version, sum)
	}
	known := map[string]string{} // to digest
	for line := range strings.Lines(string(sums)) {
		digest, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		known[strings.TrimPrefix(name, "sigs.k8s.io/gateway-api@"+version+"/")] = digest
	}
	missing := map[string]bool{"LICENSE": true}
	for name := range known {
		if strings.HasPrefix(name, "config/crd/standard/") {
			missing[name] = true
		}
	}
	err = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(folder, path)
		switch {
		case err != nil:
			return err
		case name == "module.sums" || name == "update":
			return nil
		case name != "LICENSE":
			name = "config/crd/" + name
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if fmt.Sprintf("%x", sha256.Sum256(text)) != known[name] {
			return fmt.Errorf("%s is not as Gateway API %s has published it: run %s/update", path, version, folder)
		}
		delete(missing, name)
		return nil
	})
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s lacks %s of Gateway API %s: run %[1]s/update", folder, strings.Join(slices.Sorted(maps.Keys(missing)), ", "), version)
	}
	return nil
}

// split returns the objects of a file with several.
func split(text []byte) (objects [][]byte) {
	for object := range bytes.SplitSeq(text, []byte("\n---\n")) {
		objects = append(objects, object)
	}
	return objects
}
