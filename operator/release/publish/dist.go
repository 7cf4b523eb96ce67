// SPDX-License-Identifier: Apache-2.0

package publish

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kubernetes-sigs/blixt/bytecode"
	"github.com/kubernetes-sigs/blixt/operator/release"
)

// The list of checksums, and the signature of it.
const (
	sumsName      = "SHA256SUMS"
	signatureName = sumsName + ".sigstore.json"
)

// dist is a release in a directory, checked.
type dist struct {
	dir    string
	list   *release.Release
	sums   map[string]string  // digests of all files
	images []*bytecode.Stored // as list.Images
}

// open reads a release, and returns an error if anything in it is not what was built:
// what is published is signed, and then nobody asks again.
func open(dir string, o Options) (*dist, error) {
	list, err := release.Read(dir)
	if err != nil {
		return nil, err
	}
	if !list.Tagged && !o.Untagged {
		return nil, fmt.Errorf("%s is of a commit without the tag %s: set the tag and make the release again, or publish it all the same with -untagged", dir, list.Version)
	}
	sums, err := readSums(dir)
	if err != nil {
		return nil, err
	}
	problems := compare(dir, sums)
	if _, ok := sums[release.ListName]; !ok { // what verifies a release begins with it
		problems = append(problems, fmt.Errorf("%s: %s does not list it", release.ListName, sumsName))
	}
	for _, f := range list.Files {
		if got, ok := sums[f.Name]; f.Name != sumsName && (!ok || got != f.SHA256) {
			problems = append(problems, fmt.Errorf("%s: %s and %s disagree", f.Name, sumsName, release.ListName))
		}
	}
	d := &dist{dir: dir, list: list, sums: sums}
	for _, image := range list.Images {
		stored, err := openImage(dir, image)
		problems = append(problems, err)
		d.images = append(d.images, stored)
	}
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("%s is not as it was built: make the release again\n%w", dir, err)
	}
	return d, nil
}

// readSums reads the digests of all files.
func readSums(dir string) (map[string]string, error) {
	text, err := os.ReadFile(filepath.Join(dir, sumsName))
	if err != nil {
		return nil, fmt.Errorf("%w: make the release again", err)
	}
	sums := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		digest, name, ok := strings.Cut(lines.Text(), "  ")
		if !ok || len(digest) != 2*sha256.Size || !filepath.IsLocal(name) {
			return nil, fmt.Errorf("%s: %q: want a digest, two blanks and the name of a file of the release", filepath.Join(dir, sumsName), lines.Text())
		}
		sums[name] = digest
	}
	return sums, lines.Err()
}

// compare returns what is not as the list says: files that are missing, changed, or were
// added, which would be published without a signature.
func compare(dir string, sums map[string]string) (problems []error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return []error{err}
	}
	for _, e := range entries {
		if _, ok := sums[e.Name()]; !ok && !slices.Contains([]string{sumsName, signatureName, release.ListName, "oci"}, e.Name()) {
			problems = append(problems, fmt.Errorf("%s: it is not of the release", e.Name()))
		}
	}
	for name, want := range sums {
		if got, err := hash(filepath.Join(dir, name)); err != nil {
			problems = append(problems, err)
		} else if got != want {
			problems = append(problems, fmt.Errorf("%s: it has the digest %s, and had %s", name, got, want))
		}
	}
	slices.SortFunc(problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return problems
}

// unchanged returns an error if another build has replaced the release since it was opened.
func (d *dist) unchanged() error {
	sums, err := readSums(d.dir)
	if err == nil && !maps.Equal(sums, d.sums) {
		err = fmt.Errorf("%s is another release than when this began: publish again", d.dir)
	}
	return err
}

// read reads a file of the release, as its checksum says.
func (d *dist) read(name string) ([]byte, error) {
	if !filepath.IsLocal(name) {
		return nil, fmt.Errorf("%s: it is outside of the release", name)
	}
	content, err := os.ReadFile(filepath.Join(d.dir, name))
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != d.sums[name] {
		return nil, fmt.Errorf("%s: %s has another digest of it: publish again", name, sumsName)
	}
	return content, nil
}

func hash(path string) (string, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s: it is no regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// openImage opens an image, and compares everything in its layout.
func openImage(dir string, image release.Image) (*bytecode.Stored, error) {
	if !filepath.IsLocal(image.Layout) {
		return nil, fmt.Errorf("%s: it is outside of the release", image.Layout)
	}
	layout := filepath.Join(dir, image.Layout)
	if err := checkBlobs(layout); err != nil {
		return nil, fmt.Errorf("%s: %w", image.Layout, err)
	}
	stored, err := bytecode.OpenLayout(layout)
	if err != nil {
		return nil, err
	}
	if stored.Digest() != image.Digest {
		return nil, fmt.Errorf("%s: it has the digest %s, and had %s", image.Layout, stored.Digest(), image.Digest)
	}
	return stored, complete(layout, image.Digest)
}

// complete returns an error unless everything is there that a manifest names.
func complete(layout, digest string) error {
	_, hex, _ := strings.Cut(digest, ":")
	text, err := os.ReadFile(filepath.Join(layout, "blobs", "sha256", hex))
	if err != nil {
		return fmt.Errorf("%w: it is not complete", err)
	}
	var manifest struct {
		Config            *v1.Descriptor
		Layers, Manifests []v1.Descriptor
	}
	if err := json.Unmarshal(text, &manifest); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(layout, hex), err)
	}
	for _, d := range manifest.Manifests {
		if err := complete(layout, d.Digest.String()); err != nil {
			return err
		}
	}
	if manifest.Config != nil {
		manifest.Layers = append(manifest.Layers, *manifest.Config)
	}
	for _, d := range manifest.Layers {
		if _, err := os.Stat(filepath.Join(layout, "blobs", "sha256", d.Digest.Hex)); err != nil {
			return fmt.Errorf("%w: it is not complete", err)
		}
	}
	return nil
}

// checkBlobs compares each file of a layout with its name.
func checkBlobs(layout string) error {
	blobs := filepath.Join(layout, "blobs", "sha256")
	return filepath.WalkDir(blobs, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		got, err := hash(path)
		if err == nil && got != e.Name() {
			err = fmt.Errorf("%s: it has the digest %s", filepath.Base(path), got)
		}
		return err
	})
}
