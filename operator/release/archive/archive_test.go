// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubernetes-sigs/blixt/operator/release/archive"
)

func TestArchiveDependsOnItsFilesAlone(t *testing.T) {
	at := time.Unix(1796007878, 0)
	a := archive.File{Name: "man/man1/a.1", Mode: 0o644, Content: []byte("page")}
	b := archive.File{Name: "blixt", Mode: 0o755, Content: []byte("program")}
	one, err := archive.TarGz(at, a, b)
	if err != nil {
		t.Fatal(err)
	}
	other, err := archive.TarGz(at.In(time.FixedZone("elsewhere", 20700)), b, a)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one, other) {
		t.Error("another order of files, or another time zone, makes another archive")
	}

	zip, err := gzip.NewReader(bytes.NewReader(one))
	if err != nil {
		t.Fatal(err)
	}
	if zip.Name != "" || !zip.ModTime.IsZero() {
		t.Errorf("gzip header has name %q and time %v", zip.Name, zip.ModTime)
	}
	var got []string
	for r := tar.NewReader(zip); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %s %d:%d%s %d %s", h.FileInfo().Mode(), h.Name, h.Uid, h.Gid, h.Uname+h.Gname, h.ModTime.Unix(), content))
	}
	want := []string{
		"-rwxr-xr-x blixt 0:0 1796007878 program", "drwxr-xr-x man/ 0:0 1796007878 ",
		"drwxr-xr-x man/man1/ 0:0 1796007878 ", "-rw-r--r-- man/man1/a.1 0:0 1796007878 page",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}
