// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// The media types of a chart in a registry (https://helm.sh/docs/topics/registries).
const (
	ConfigMediaType  types.MediaType = "application/vnd.cncf.helm.config.v1+json"
	ContentMediaType types.MediaType = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
)

// OCI returns the image that holds the chart of an archive. It is equal to that which helm
// push makes of the archive, but for the media type of the manifest, which Helm leaves out
// and the specification of OCI recommends, and the time, which is the commit's.
func OCI(archive []byte, o Options) (v1.Image, error) {
	f, err := unpack(archive)
	if err != nil {
		return nil, fmt.Errorf("make an image of the chart: %w", err)
	}
	m, err := readMetadata(f)
	if err != nil {
		return nil, fmt.Errorf("make an image of the chart: %w", err)
	}
	config, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	i := &image{config: config, layer: static.NewLayer(archive, ContentMediaType)}
	digest, size, err := v1.SHA256(bytes.NewReader(archive))
	if err != nil {
		return nil, err
	}
	configDigest, configSize, err := v1.SHA256(bytes.NewReader(config))
	if err != nil {
		return nil, err
	}
	i.manifest, err = json.Marshal(v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.OCIManifestSchema1,
		Config:        v1.Descriptor{MediaType: ConfigMediaType, Size: configSize, Digest: configDigest},
		Layers:        []v1.Descriptor{{MediaType: ContentMediaType, Size: size, Digest: digest}},
		Annotations:   annotations(m, o.Time),
	})
	if err != nil {
		return nil, err
	}
	return partial.CompressedToImage(i)
}

// annotations are those of Helm, which says in OCI's words what Chart.yaml says, and copies
// its annotations.
func annotations(m *metadata, at time.Time) map[string]string {
	const prefix = "org.opencontainers.image."
	all := maps.Clone(m.Annotations)
	if all == nil {
		all = map[string]string{}
	}
	var authors []string
	for _, one := range m.Maintainers {
		author := one.Name
		if one.Email != "" {
			author += " (" + one.Email + ")"
		}
		authors = append(authors, author)
	}
	source := ""
	if len(m.Sources) > 0 {
		source = m.Sources[0]
	}
	for key, value := range map[string]string{
		"title": m.Name, "description": m.Description, "version": m.Version, "url": m.Home, "source": source,
		"authors": strings.Join(authors, ", "), "created": at.UTC().Format(time.RFC3339),
	} {
		if value != "" {
			all[prefix+key] = value
		}
	}
	return all
}

// image is an image whose configuration is not that of a container.
type image struct {
	manifest, config []byte
	layer            v1.Layer
}

func (i *image) RawManifest() ([]byte, error)        { return i.manifest, nil }
func (i *image) RawConfigFile() ([]byte, error)      { return i.config, nil }
func (i *image) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

func (i *image) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	if digest, err := i.layer.Digest(); err != nil || digest != h {
		return nil, fmt.Errorf("no layer %s", h)
	}
	return i.layer, nil
}
