// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/release/archive"
)

// directory is that of all files in an archive: the name of the chart.
const directory = "blixt"

// files are those of a chart, by path.
type files map[string][]byte

// read reads a chart, without what its .helmignore names.
func read(dir string) (files, error) {
	text, err := os.ReadFile(filepath.Join(dir, ".helmignore"))
	if err != nil {
		return nil, err
	}
	ignored, err := parseIgnore(string(text))
	if err != nil {
		return nil, err
	}
	all := files{}
	return all, fs.WalkDir(os.DirFS(dir), ".", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || file == ".":
			return err
		case ignored(file, d.IsDir()) && d.IsDir():
			return fs.SkipDir
		case ignored(file, d.IsDir()) || d.IsDir():
			return nil
		case !d.Type().IsRegular():
			return fmt.Errorf("%s is no regular file: what it leads to depends on the machine", filepath.Join(dir, file))
		}
		all[file], err = os.ReadFile(filepath.Join(dir, file))
		return err
	})
}

// parseIgnore understands of Helm's .helmignore what this chart needs.
func parseIgnore(text string) (func(file string, isDir bool) bool, error) {
	rules := []string{"templates/.?*"} // which Helm adds
	for line := range strings.SplitSeq(text, "\n") {
		rule := strings.TrimSpace(line)
		if rule == "" || rule[0] == '#' {
			continue
		}
		if _, err := path.Match(rule, ""); err != nil || rule[0] == '!' || strings.Contains(rule, "**") {
			return nil, fmt.Errorf(".helmignore: pattern %q is not supported here", rule)
		}
		rules = append(rules, rule)
	}
	return func(file string, isDir bool) bool {
		return slices.ContainsFunc(rules, func(rule string) bool {
			rule, ofDir := strings.CutSuffix(rule, "/")
			name := file
			if !strings.Contains(rule, "/") {
				name = path.Base(file)
			}
			matches, _ := path.Match(strings.TrimPrefix(rule, "/"), name) // it was tried above
			return matches && (isDir || !ofDir)
		})
	}, nil
}

// pack writes an archive that depends on the files and the time alone.
func (f files) pack(at time.Time) ([]byte, error) {
	var all []archive.File
	for file, content := range f {
		all = append(all, archive.File{Name: path.Join(directory, file), Mode: 0o644, Content: content})
	}
	return archive.TarGz(at.UTC().Truncate(time.Second), all...)
}

// unpack returns the files of an archive that pack made.
func unpack(packed []byte) (files, error) {
	zipped, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	all := files{}
	r := tar.NewReader(zipped)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		file, ok := strings.CutPrefix(h.Name, directory+"/")
		if !ok {
			return nil, fmt.Errorf("%s is not in directory %s", h.Name, directory)
		}
		if all[file], err = io.ReadAll(r); err != nil {
			return nil, err
		}
	}
}
