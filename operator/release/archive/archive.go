// SPDX-License-Identifier: Apache-2.0

// Package archive writes archives that depend on their files alone.
package archive

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"path"
	"slices"
	"time"
)

// File is a file of an archive.
type File struct {
	Name    string // its path
	Mode    int64
	Content []byte
}

// TarGz returns an archive of the files in the order of their names, with their
// directories: all of root, and of one time.
func TarGz(at time.Time, files ...File) ([]byte, error) {
	files = slices.SortedFunc(slices.Values(files), func(a, b File) int { return cmp.Compare(a.Name, b.Name) })
	var out bytes.Buffer
	zip, err := gzip.NewWriterLevel(&out, gzip.DefaultCompression)
	if err != nil {
		return nil, err
	}
	w := writer{tar.NewWriter(zip), at, map[string]bool{".": true}}
	for _, f := range files {
		if err := w.add(f); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if err := zip.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

type writer struct {
	*tar.Writer
	at   time.Time
	made map[string]bool // directories
}

func (w writer) add(f File) error {
	if err := w.directory(path.Dir(f.Name)); err != nil {
		return err
	}
	header := &tar.Header{Typeflag: tar.TypeReg, Name: f.Name, Mode: f.Mode, ModTime: w.at, Size: int64(len(f.Content)), Format: tar.FormatUSTAR}
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	_, err := w.Write(f.Content)
	return err
}

func (w writer) directory(name string) error {
	if w.made[name] {
		return nil
	}
	if err := w.directory(path.Dir(name)); err != nil {
		return err
	}
	w.made[name] = true
	return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: w.at, Format: tar.FormatUSTAR})
}
