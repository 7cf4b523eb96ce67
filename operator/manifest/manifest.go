// SPDX-License-Identifier: Apache-2.0

// Package manifest reads a directory of Kubernetes YAML as strictly as an API server,
// with the defaults and the validation of Gateway API's own CRDs.
//
// In go *.yaml, *.yml and *.json files, each with any number of documents or Lists. Out
// come gateway.Objects and EndpointSlices, or all errors at once, each with file, line
// and reason. Watch reports when to read again.
package manifest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// Set is the contents of a directory.
type Set struct {
	Objects        gateway.Objects
	EndpointSlices []discoveryv1.EndpointSlice
	// Ignored are objects of kinds that Blixt does not read.
	Ignored []Object
	// Files are the names of the files read, sorted.
	Files []string

	seen map[string]Object
}

// Object names an object and where it was found.
type Object struct {
	File string
	Line int
	// Kind is as in the file; Name includes the namespace, if there is one.
	APIVersion, Kind, Name string
}

// String returns kind and name.
func (o Object) String() string { return strings.TrimSpace(o.Kind + " " + o.Name) }

// Read reads all manifests directly in dir. Returns Errors if any of them is
// invalid, and another error if there are none or the directory cannot be read.
//
// A directory without manifests is being replaced, or the wrong one, more often
// than it means to serve nothing: a file with nothing but a comment means that.
func Read(dir string) (*Set, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read directory: %w", err)
	}
	set := &Set{seen: map[string]Object{}}
	var errs Errors
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if !isManifest(entry.Name()) || isDir(path) {
			continue
		}
		set.Files = append(set.Files, entry.Name())
		text, err := os.ReadFile(path)
		if err != nil {
			errs = append(errs, &Error{File: entry.Name(), Reason: unwrapPath(err)})
			continue
		}
		errs = append(errs, set.readFile(entry.Name(), text)...)
	}
	if len(errs) > 0 {
		slices.SortStableFunc(errs, (*Error).compare)
		return nil, errs
	}
	if len(set.Files) == 0 {
		return nil, fmt.Errorf("read directory %s: no *.yaml, *.yml or *.json files", dir)
	}
	return set, nil
}

// isManifest reports whether a file is to be read. Hidden files are not, nor those that
// editors and Kubernetes keep beside: .#a.yaml, #a.yaml#, a.yaml~, .a.yaml.swp, ..data.
func isManifest(name string) bool {
	if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "#") {
		return false
	}
	return slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name))
}

func isDir(path string) bool {
	info, err := os.Stat(path) // follows symlinks, of which ConfigMaps consist
	return err == nil && info.IsDir()
}

// unwrapPath returns an error's text without the path, which the caller names.
func unwrapPath(err error) string {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Op + ": " + p.Err.Error()
	}
	return err.Error()
}
