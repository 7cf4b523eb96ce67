// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

const valuesFile = "values.yaml"

// images returns the values that name the images of a release.
func (o Options) images() map[string]string {
	repository, digest, _ := strings.Cut(o.Image, "@")
	return map[string]string{"image.repository": repository, "image.digest": digest, "bytecode.image": o.Bytecode}
}

// writeValues names the images. The file is not encoded anew, as its comments are the
// manual, and where they are matters.
func writeValues(f files, o Options) error {
	var document yaml.Node
	if err := yaml.Unmarshal(f[valuesFile], &document); err != nil {
		return fmt.Errorf("%s: %w", valuesFile, err)
	}
	lines := strings.SplitAfter(string(f[valuesFile]), "\n")
	for key, value := range o.images() {
		node, err := find(&document, strings.Split(key, "."))
		if err != nil {
			return fmt.Errorf("%s: %s: %w", valuesFile, key, err)
		}
		line, at := lines[node.Line-1], node.Column-1
		if node.Style != yaml.DoubleQuotedStyle || node.Value != "" {
			return fmt.Errorf(`%s: %s is %s, want "": it is set when a release is made`, valuesFile, key, strings.TrimSpace(line[at:]))
		}
		lines[node.Line-1] = line[:at] + strconv.Quote(value) + line[at+len(`""`):]
	}
	f[valuesFile] = []byte(strings.Join(lines, ""))
	return nil
}

// find returns the scalar at a path of keys.
func find(node *yaml.Node, path []string) (*yaml.Node, error) {
	if node.Kind == yaml.DocumentNode {
		return find(node.Content[0], path)
	}
	if len(path) == 0 {
		return node, nil
	}
	for i := 0; node.Kind == yaml.MappingNode && i < len(node.Content); i += 2 {
		if node.Content[i].Value == path[0] {
			return find(node.Content[i+1], path[1:])
		}
	}
	return nil, errors.New("there is no such value")
}
