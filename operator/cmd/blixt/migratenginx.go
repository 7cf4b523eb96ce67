// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/migrate/nginx"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

func migrateNginx() *migrateSource {
	var prefix string
	dirs := func(first string) []string {
		if prefix != "" {
			return []string{prefix}
		}
		return []string{filepath.Dir(first)}
	}
	return &migrateSource{
		name:  "nginx",
		short: "Read stream {} of nginx",
		long: `Reads what stream {} of nginx balances, with all files that are included, or what nginx -T
prints, which is all files in one. A file that belongs into stream {} can be given by
itself. Blocks of http {} are told, and stay with nginx.

Relative includes begin at --prefix or, without, at the directory of the first file, and
then at /etc/nginx. Includes below /etc/nginx are looked for there as well, so that a copy
of another host's files can be read.`,
		example: `  blixt migrate nginx /etc/nginx/nginx.conf -o blixt.yaml
  nginx -T | blixt migrate nginx -
  blixt migrate nginx copy/nginx.conf --prefix copy --address 192.0.2.10`,
		gather: func(files []migrate.File) ([]migrate.File, error) {
			where := dirs(files[0].Name)
			return included(files, true, nginx.Includes, func(_ migrate.File, pattern string) []string { return nginx.Candidates(pattern, where) })
		},
		read: func(files []migrate.File) *migrate.Plan { return nginx.ReadIn(dirs(files[0].Name), files) },
		flags: func(f *pflag.FlagSet) {
			f.StringVar(&prefix, "prefix", "", "directory that relative includes begin at")
		},
	}
}

// maxIncluded is how many files includes may lead to, and how large they may be together.
const (
	maxIncluded      = 10_000
	maxIncludedBytes = 256 << 20
)

// included adds the files that the files include, as far as there are any. Those that are not
// there are told by the reader. candidates are where the files of a pattern may be. What is no
// regular file is never opened, as a FIFO would wait for ever: strict makes it an error, and without
// it is passed over.
func included(files []migrate.File, strict bool, patterns func(migrate.File) []string, candidates func(migrate.File, string) []string) ([]migrate.File, error) {
	have := map[string]bool{}
	size := 0
	for _, f := range files {
		have[filepath.Clean(f.Name)] = true
		size += len(f.Text)
	}
	for i := 0; i < len(files); i++ {
		for _, pattern := range patterns(files[i]) {
			found, err := firstFound(candidates(files[i], pattern), strict)
			if err != nil {
				return nil, fmt.Errorf("%s: include %s: %w", files[i].Name, pattern, err)
			}
			for _, path := range found {
				if have[path] {
					continue
				}
				have[path] = true
				text, err := readRegular(path)
				if err != nil {
					return nil, forRoot(err)
				}
				files = append(files, migrate.File{Name: path, Text: text})
				if size += len(text); len(files) > maxIncluded || size > maxIncludedBytes {
					return nil, fmt.Errorf("%s and what it includes are more than %s files or %d MiB: give fewer", files[0].Name, phrase.Number(maxIncluded), maxIncludedBytes>>20)
				}
			}
		}
	}
	return files, nil
}

// firstFound returns the files of the first of the paths or patterns that has any. If it is strict,
// it returns an error for one that is no regular file.
func firstFound(candidates []string, strict bool) ([]string, error) {
	for _, c := range candidates {
		all, err := filepath.Glob(c)
		if err != nil {
			return nil, err
		}
		var found []string
		for _, path := range all {
			switch info, err := os.Stat(path); {
			case errors.Is(err, fs.ErrNotExist):
			case err != nil || info.Mode().IsRegular(): // reading says what is wrong
				found = append(found, path)
			case strict:
				return nil, fmt.Errorf("%s is no regular file, and is not opened: write into a file what it says", path)
			}
		}
		if len(found) > 0 {
			return found, nil
		}
	}
	return nil, nil
}
