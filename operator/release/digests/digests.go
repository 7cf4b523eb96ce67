// SPDX-License-Identifier: Apache-2.0

// Package digests keeps the digests of images that others publish in the chart's values. A
// release must be the same whenever it is made, and a tag may name another image tomorrow:
// so git has the digests, and the release is refused if the tags no longer name them.
package digests

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Resolve returns the digest, such as sha256:…, of an image's name with its tag.
type Resolve func(image string) (string, error)

// Update returns the values of a chart with the digests of all images of bpfman, which are
// maps of repository, tag and digest below bpfman.images, and lines that tell what has changed.
// All else stays as it is, comments and order as well. An error names each image that has no
// digest.
func Update(values []byte, resolve Resolve) (updated []byte, changes []string, err error) {
	var document yaml.Node
	if err := yaml.Unmarshal(values, &document); err != nil {
		return nil, nil, err
	}
	images := at(at(&document, "bpfman"), "images")
	if images == nil || images.Kind != yaml.MappingNode || len(images.Content) == 0 {
		return nil, nil, errors.New("the values have no bpfman.images")
	}
	lines := bytes.SplitAfter(values, []byte("\n"))
	var failed []error
	for i := 0; i < len(images.Content); i += 2 {
		key, image := images.Content[i].Value, images.Content[i+1]
		repository, tag, digest := at(image, "repository"), at(image, "tag"), at(image, "digest")
		if repository == nil || tag == nil || digest == nil {
			failed = append(failed, fmt.Errorf("bpfman.images.%s: want repository, tag and digest", key))
			continue
		}
		name := repository.Value + ":" + tag.Value
		found, err := resolve(name)
		if err != nil {
			failed = append(failed, fmt.Errorf("bpfman.images.%s: %s: %w", key, name, err))
			continue
		}
		if found == digest.Value {
			continue
		}
		changes = append(changes, fmt.Sprintf("%s is %s, not %q", name, found, digest.Value))
		line := &lines[digest.Line-1]
		*line = replace(*line, digest, found)
	}
	return bytes.Join(lines, nil), changes, errors.Join(failed...)
}

// at returns the value of a key of a map, or of a document's.
func at(node *yaml.Node, key string) *yaml.Node {
	if node != nil && node.Kind == yaml.DocumentNode {
		node = node.Content[0]
	}
	if node == nil || node.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i < len(node.Content); i += 2 {
		if node.Content[i].Value == key {
			return node.Content[i+1]
		}
	}
	return nil
}

// replace puts a value in the place of a scalar of the line.
func replace(line []byte, old *yaml.Node, value string) []byte {
	text, begin := string(line), old.Column-1
	length := len(old.Value)
	if old.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0 {
		length += len(`""`)
	}
	rest := text[begin+length:]
	return []byte(strings.Join([]string{text[:begin], value, rest}, ""))
}
