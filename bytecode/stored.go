// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Stored is an image in a registry, in a directory, or newly built; or an object in a
// file, which is not an image yet.
type Stored struct {
	name       string
	descriptor v1.Descriptor
	manifest   []byte // what descriptor describes
	dir        string // of the layout that it is in, if it is in one
	index      v1.ImageIndex
	image      v1.Image // instead of an index
	object     []byte   // instead of either

	attached func() ([]v1.Image, error) // bundles and simple signatures
	explain  func(error) error
}

// Digest returns the image's digest, empty for a file.
func (s *Stored) Digest() string {
	if s.object != nil {
		return ""
	}
	return s.descriptor.Digest.String()
}

// Name returns the image's name by digest, or the file's.
func (s *Stored) Name() string { return s.name }

// Index returns the list of the image's manifests, none for an image of one platform.
func (s *Stored) Index() (*v1.IndexManifest, error) {
	if s.index == nil {
		return &v1.IndexManifest{}, nil
	}
	return s.index.IndexManifest()
}

// New builds an image of an object.
func New(o *Object, meta Meta) (*Stored, error) {
	index, err := Build(o, meta)
	if err != nil {
		return nil, err
	}
	return FromIndex(index)
}

// FromIndex returns any images as Stored, to push and sign them like bytecode.
func FromIndex(index v1.ImageIndex) (*Stored, error) {
	manifest, err := index.RawManifest()
	if err != nil {
		return nil, fmt.Errorf("build image: %w", err)
	}
	digest, size, err := v1.SHA256(bytes.NewReader(manifest))
	if err != nil {
		return nil, fmt.Errorf("build image: %w", err)
	}
	mediaType, err := index.MediaType()
	if err != nil {
		return nil, fmt.Errorf("build image: %w", err)
	}
	return &Stored{
		name:       digest.String(),
		descriptor: v1.Descriptor{MediaType: mediaType, Digest: digest, Size: size},
		manifest:   manifest,
		index:      index,
		attached:   func() ([]v1.Image, error) { return nil, nil },
		explain:    func(err error) error { return err },
	}, nil
}

// Open opens what ref names: a file that ends in .o, a directory with an OCI layout, or
// an image in a registry. Returns RegistryError for what a registry refused.
func Open(ctx context.Context, ref string, o Options) (*Stored, error) {
	info, err := os.Stat(ref)
	switch {
	case err == nil && info.IsDir():
		return openLayout(ref)
	case err == nil:
		return openFile(ref)
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrInvalid), filepath.IsAbs(ref), strings.HasPrefix(ref, "."), strings.HasSuffix(ref, ".o"):
		return nil, fmt.Errorf("open bytecode: %w", err)
	}
	if _, err := parseRef(ref); err != nil {
		return nil, fmt.Errorf("%s: no such file or directory, and %w", ref, err)
	}
	return openRegistry(ctx, ref, o)
}

func openFile(path string) (*Stored, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open bytecode: %w", err)
	}
	defer f.Close()
	object, err := io.ReadAll(io.LimitReader(f, maxObject+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(object) > maxObject {
		return nil, fmt.Errorf("%s has more than %d bytes: this is no eBPF object", path, maxObject)
	}
	return &Stored{
		name:     path,
		object:   object,
		attached: func() ([]v1.Image, error) { return nil, nil },
		explain:  func(err error) error { return fmt.Errorf("%s: %w", path, err) },
	}, nil
}
