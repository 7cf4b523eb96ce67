// SPDX-License-Identifier: Apache-2.0

package sysdump

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"path"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// largest is how much of one thing is kept: its end, where logs are newest.
const largest = 8 << 20

// Entry says in index.json what a file is, or why it is not there.
type Entry struct {
	File string `json:"file"`
	// From is where it comes from, such as a command.
	From string `json:"from"`
	// Absent is why this host or cluster does not have it, which is no fault; Error is
	// why it could not be got.
	Absent string `json:"absent,omitempty"`
	Error  string `json:"error,omitempty"`
	// Cut is how many bytes of its beginning are left out, Records how many lines, as they
	// tell of clients.
	Cut     int `json:"cut,omitempty"`
	Records int `json:"records,omitempty"`
}

// Index is index.json.
type Index struct {
	Version string    `json:"version"`
	Time    time.Time `json:"time"`
	// Clients is true if the addresses of clients are in it.
	Clients bool    `json:"clients"`
	Entries []Entry `json:"entries"`
}

// Dump is an archive that is being made. What cannot be got is noted, and the rest goes
// on.
type Dump struct {
	*Scrubber
	// Limit is how long one thing may take.
	Limit time.Duration

	root  string
	zip   *gzip.Writer
	tar   *tar.Writer
	index Index
	err   error // of writing
}

// New begins an archive with one directory, root.
func New(w io.Writer, root, version string, s *Scrubber) *Dump {
	zip := gzip.NewWriter(w)
	return &Dump{Scrubber: s, Limit: 30 * time.Second, root: root, zip: zip, tar: tar.NewWriter(zip),
		index: Index{Version: version, Time: time.Now().UTC(), Clients: s.KeepClients, Entries: []Entry{}}}
}

// absent is an error that is no fault.
type absent struct{ error }

// Absent returns an error which says that there is no such thing here.
func Absent(why string) error { return absent{errors.New(why)} }

// Add adds a file with what get returns, scrubbed. With an error it has what get
// returned nevertheless.
func (d *Dump) Add(ctx context.Context, file, from string, get func(context.Context) ([]byte, error)) {
	ctx, cancel := context.WithTimeout(ctx, d.Limit)
	defer cancel()
	text, err := get(ctx)
	e := Entry{File: file, From: from}
	switch is := (absent{}); {
	case errors.As(err, &is), errors.Is(err, fs.ErrNotExist), errors.Is(err, exec.ErrNotFound):
		e.Absent = d.Text(err.Error())
	case err != nil:
		e.Error = d.Text(err.Error())
	}
	if e.Cut = len(text) - largest; e.Cut > 0 {
		text = text[e.Cut:]
	} else {
		e.Cut = 0
	}
	var kept string
	kept, e.Records = d.Lines(string(text))
	d.index.Entries = append(d.index.Entries, e)
	if kept != "" || err == nil {
		d.write(file, []byte(kept))
	}
}

// AddJSON adds a value as JSON.
func (d *Dump) AddJSON(ctx context.Context, file, from string, get func(context.Context) (any, error)) {
	d.Add(ctx, file, from, func(ctx context.Context) ([]byte, error) {
		v, err := get(ctx)
		if err != nil {
			return nil, err
		}
		return json.MarshalIndent(v, "", "  ")
	})
}

// AddCommand adds what a command prints, its errors last.
func (d *Dump) AddCommand(ctx context.Context, file, name string, args ...string) {
	d.Add(ctx, file, strings.Join(append([]string{name}, args...), " "), func(ctx context.Context) ([]byte, error) {
		c := exec.CommandContext(ctx, name, args...)
		c.WaitDelay = time.Second // a child of its own may hold its output
		return c.CombinedOutput()
	})
}

// write writes a file. Names may be of objects that others have called: none leads out of
// the directory.
func (d *Dump) write(file string, text []byte) {
	if d.err != nil {
		return
	}
	name := path.Join(d.root, path.Join("/", phrase.Printable(file)))
	d.err = d.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(text)), ModTime: d.index.Time, Format: tar.FormatPAX})
	if d.err == nil {
		_, d.err = d.tar.Write(text)
	}
}

// Close writes the index and ends the archive. It returns how many things could not be
// got.
func (d *Dump) Close() (failed int, err error) {
	for _, e := range d.index.Entries {
		if e.Error != "" {
			failed++
		}
	}
	text, err := json.MarshalIndent(d.index, "", "  ")
	if err != nil {
		return failed, err
	}
	d.write("index.json", text)
	if err := errors.Join(d.err, d.tar.Close(), d.zip.Close()); err != nil {
		return failed, fmt.Errorf("write archive: %w", err)
	}
	return failed, nil
}
