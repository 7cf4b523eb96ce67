// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// refName is the annotation by which a layout names an image.
const refName = "org.opencontainers.image.ref.name"

// layoutFile is the file that marks a directory as an OCI layout.
const layoutFile = "oci-layout"

// openLayout opens the one image of a layout, which also holds the image's signatures.
func openLayout(dir string) (*Stored, error) {
	path, err := layout.FromPath(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is no OCI layout (no file index.json): make one with blixt bytecode build or pull", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open layout %s: %w", dir, err)
	}
	all, err := path.ImageIndex()
	if err != nil {
		return nil, fmt.Errorf("open layout %s: %w", dir, err)
	}
	list, err := all.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("open layout %s: %w", dir, err)
	}
	var image *v1.Descriptor
	var signatures []v1.Descriptor
	for i, d := range list.Manifests {
		switch {
		case strings.HasPrefix(d.ArtifactType, bundleType) || strings.HasSuffix(d.Annotations[refName], ".sig"):
			signatures = append(signatures, d)
		case image != nil:
			return nil, fmt.Errorf("layout %s holds several images (%s, %s): want one", dir, image.Digest, d.Digest)
		default:
			image = &list.Manifests[i]
		}
	}
	if image == nil {
		return nil, fmt.Errorf("layout %s holds no image", dir)
	}
	s := &Stored{
		name:       dir + "@" + image.Digest.String(),
		descriptor: *image,
		dir:        dir,
		explain:    func(err error) error { return fmt.Errorf("layout %s: %w", dir, err) },
	}
	if s.manifest, err = path.Bytes(image.Digest); err != nil {
		return nil, fmt.Errorf("open layout %s: %w: it is not complete, get it again", dir, err)
	}
	if image.MediaType.IsIndex() {
		s.index, err = all.ImageIndex(image.Digest)
	} else {
		s.image, err = all.Image(image.Digest)
	}
	if err != nil {
		return nil, fmt.Errorf("open layout %s: %w", dir, err)
	}
	s.attached = func() (images []v1.Image, err error) {
		for _, d := range signatures {
			im, err := all.Image(d.Digest)
			if err != nil {
				return nil, fmt.Errorf("read signature in %s: %w", dir, err)
			}
			images = append(images, im)
		}
		return images, nil
	}
	return s, nil
}

// Write writes an image and its signatures as an OCI layout, and replaces an existing
// layout: completely, or not at all.
func (s *Stored) Write(dir string) error {
	if s.object != nil {
		return fmt.Errorf("write %s: this is a file, build an image of it first", s.name)
	}
	dir = filepath.Clean(dir)
	if err := replaceable(dir); err != nil {
		return err
	}
	signatures, err := s.attached()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	// Beside it, because a rename does not cross file systems.
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".bytecode-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := s.write(tmp, signatures); errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("write layout %s: %w: make room there, or choose another directory", dir, syscall.ENOSPC)
	} else if err != nil {
		return s.explain(fmt.Errorf("write layout: %w", err))
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return fmt.Errorf("write layout: %w", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("replace %s: %w", dir, err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return fmt.Errorf("write layout: %w", err)
	}
	return nil
}

// replaceable returns an error unless dir does not exist, is empty, or is a layout:
// nothing else may be removed.
func replaceable(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("replace %s: %w", dir, err)
	}
	if _, err := os.Stat(filepath.Join(dir, layoutFile)); err != nil {
		return fmt.Errorf("directory %s holds something that is no OCI layout: choose another", dir)
	}
	return nil
}

func (s *Stored) write(dir string, signatures []v1.Image) error {
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	name := layout.WithAnnotations(map[string]string{refName: "latest"})
	if s.index != nil {
		err = path.AppendIndex(s.index, name)
	} else {
		err = path.AppendImage(s.image, name)
	}
	if err != nil {
		return err
	}
	for _, image := range signatures {
		if err := s.appendSignature(path, image); err != nil {
			return err
		}
	}
	return nil
}

func (s *Stored) appendSignature(path layout.Path, image v1.Image) error {
	manifest, err := image.Manifest()
	if err != nil {
		return err
	}
	if manifest.Subject == nil {
		return path.AppendImage(image, layout.WithAnnotations(map[string]string{refName: simpleTag(s.descriptor.Digest)}))
	}
	// AppendImage leaves out the artifact type, by which it is found again.
	raw, err := image.RawManifest()
	if err != nil {
		return err
	}
	digest, err := image.Digest()
	if err != nil {
		return err
	}
	if err := path.AppendImage(image); err != nil {
		return err
	}
	if err := path.RemoveDescriptors(func(d v1.Descriptor) bool { return d.Digest == digest }); err != nil {
		return err
	}
	return path.AppendDescriptor(v1.Descriptor{
		MediaType: manifest.MediaType, Digest: digest, Size: int64(len(raw)), ArtifactType: manifest.ArtifactType,
	})
}

// OpenLayout opens a directory with an OCI layout, and nothing else.
func OpenLayout(dir string) (*Stored, error) { return openLayout(dir) }
