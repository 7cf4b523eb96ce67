// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kubernetes-sigs/blixt/bpf"
)

// Image is a bytecode image, or a bare object, that was read and checked.
type Image struct {
	// Name of the image, by digest; or of the file; or "built in".
	Name string `json:"name"`
	// Digest of the image index or image, empty for an object alone.
	Digest string `json:"digest,omitempty"`
	// Object for the machine's architecture.
	Object *Object `json:"object"`
	// Size of the layer that holds it, in bytes, or of the object.
	Size int64 `json:"size"`
	// Kernel is the oldest that can load the object.
	Kernel string `json:"kernel"`
	// Platforms for which the image has an object.
	Platforms   []string          `json:"platforms,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	// Signatures found, if there are keys to verify them.
	Signatures []Signature `json:"signatures,omitempty"`
}

// Load reads the image or object that ref names, as Open does, or the built-in
// object if ref is empty. Labels have to be those of the object, and if there are
// keys, one of them must have signed. Returns RegistryError for what a registry
// refused.
func Load(ctx context.Context, ref string, o Options) (*Image, error) {
	if ref == "" {
		if len(o.Keys) > 0 {
			return nil, unsigned("the built-in object", "it comes with the program: verify that, or name an image")
		}
		object, err := ParseObject(bpf.Object())
		if err != nil {
			return nil, fmt.Errorf("built-in object: %w", err)
		}
		return bare("built in", object), nil
	}
	s, err := Open(ctx, ref, o)
	if err != nil {
		return nil, err
	}
	return s.Load(o)
}

func bare(name string, o *Object) *Image {
	return &Image{Name: name, Object: o, Size: int64(len(o.Bytes)), Kernel: o.Kernel()}
}

// Load reads the object of a Stored image, with the errors of the function Load. It
// verifies the signature first, and unpacks nothing that is not signed as demanded.
func (s *Stored) Load(o Options) (*Image, error) {
	if s.object != nil {
		if len(o.Keys) > 0 {
			return nil, unsigned(s.name, "a file cannot be: build an image of it, sign that")
		}
		object, err := ParseObject(s.object)
		if err != nil {
			return nil, s.explain(err)
		}
		return bare(s.name, object), nil
	}
	var signatures []Signature
	if len(o.Keys) > 0 {
		var err error
		if signatures, err = s.Verify(o.Keys); err != nil {
			return nil, err
		}
	}
	im, err := s.read(o)
	if err != nil {
		return nil, s.explain(err)
	}
	im.Signatures = signatures
	return im, nil
}

func (s *Stored) read(o Options) (*Image, error) {
	im := &Image{Name: s.name, Digest: s.Digest()}
	if err := checkDigest(s.manifest, s.descriptor.Digest); err != nil {
		return nil, err
	}
	image, digest := s.image, s.descriptor.Digest
	if s.index != nil {
		// Parse the bytes that were just compared, not a file that may change.
		list, err := v1.ParseIndexManifest(bytes.NewReader(s.manifest))
		if err != nil {
			return nil, fmt.Errorf("read index: %w", err)
		}
		d, platforms, err := choose(list.Manifests, o)
		if err != nil {
			return nil, err
		}
		im.Platforms, im.Annotations, digest = platforms, list.Annotations, d.Digest
		if image, err = s.index.Image(digest); err != nil {
			return nil, fmt.Errorf("read image: %w", err)
		}
	}
	raw, err := image.RawManifest()
	if err != nil {
		return nil, fmt.Errorf("read image: %w", err)
	}
	if err := checkDigest(raw, digest); err != nil {
		return nil, err
	}
	return im, im.unpack(image)
}

// unpack reads the object in the one layer of an image, and checks the image's labels.
func (im *Image) unpack(image v1.Image) error {
	manifest, err := image.Manifest()
	if err != nil {
		return fmt.Errorf("read image: %w", err)
	}
	if manifest.Config.Size > maxManifest {
		return fmt.Errorf("configuration has %d bytes: this is no bytecode image", manifest.Config.Size)
	}
	raw, err := image.RawConfigFile()
	if err != nil {
		return fmt.Errorf("read image: %w", err)
	}
	if err := checkDigest(raw, manifest.Config.Digest); err != nil {
		return err
	}
	config, err := v1.ParseConfigFile(bytes.NewReader(raw))
	if err != nil {
		return fmt.Errorf("read image: %w", err)
	}
	if _, ok := config.Config.Labels[ProgramsLabel]; !ok {
		return fmt.Errorf("has no label %s: this is no bytecode image", ProgramsLabel)
	}
	if im.Platforms == nil {
		im.Platforms = []string{config.OS + "/" + config.Architecture}
		im.Annotations = manifest.Annotations
	}
	layers, err := image.Layers()
	if err != nil {
		return fmt.Errorf("read image: %w", err)
	}
	if len(layers) != 1 {
		return fmt.Errorf("has %d layers, bpfman loads the first of them: want one", len(layers))
	}
	im.Size = manifest.Layers[0].Size
	object, err := unpack(layers[0])
	if err != nil {
		return err
	}
	if im.Object, err = ParseObject(object); err != nil {
		return err
	}
	im.Kernel = im.Object.Kernel()
	return im.Object.checkLabels(config.Config.Labels)
}

// choose returns the image of an index for a machine.
func choose(all []v1.Descriptor, o Options) (v1.Descriptor, []string, error) {
	want := cmp.Or(o.Architecture, runtime.GOARCH)
	var platforms []string
	var first, found *v1.Descriptor
	for i, d := range all {
		// Docker adds attestations of the build as unknown/unknown.
		if d.Platform == nil || d.Platform.OS != "linux" || !d.MediaType.IsImage() {
			continue
		}
		platforms = append(platforms, d.Platform.OS+"/"+d.Platform.Architecture)
		if first == nil {
			first = &all[i]
		}
		if found == nil && d.Platform.Architecture == want {
			found = &all[i]
		}
	}
	slices.Sort(platforms)
	if found == nil && o.AnyArchitecture {
		found = first
	}
	if found == nil {
		return v1.Descriptor{}, nil, fmt.Errorf("has nothing for linux/%s, but for %s: build it for that machine", want, cmp.Or(strings.Join(platforms, ", "), "no machine"))
	}
	return *found, platforms, nil
}

var errDamaged = errors.New("it is damaged, get it again")

// checkDigest returns an error unless raw has a digest. It matters for directories: what
// comes from a registry the library has already compared.
func checkDigest(raw []byte, want v1.Hash) error {
	got, _, err := v1.SHA256(bytes.NewReader(raw))
	if err != nil {
		return fmt.Errorf("hash manifest: %w", err)
	}
	if got != want {
		return fmt.Errorf("content is %s, want %s: %w", got, want, errDamaged)
	}
	return nil
}
