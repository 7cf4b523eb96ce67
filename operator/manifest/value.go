// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"bytes"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	sigsjson "sigs.k8s.io/json"
	sigsyaml "sigs.k8s.io/yaml"
)

// valueOf returns the value of a document as kubectl sends it to an API server: the one of
// sigs.k8s.io/yaml. That costs more than all else, so it is asked only where a scalar is
// in doubt; a fuzz target compares the two.
func valueOf(text []byte, node *yaml.Node) (any, error) {
	if value, sure := plainValue(node); sure && !mayHaveTags(text) {
		return value, nil
	}
	asJSON, err := sigsyaml.YAMLToJSON(text)
	if err != nil {
		return nil, err
	}
	var value any
	return value, sigsjson.UnmarshalCaseSensitivePreserveInts(asJSON, &value)
}

// mayHaveTags reports whether a text has the sign of a tag. Nodes do not always show it.
func mayHaveTags(text []byte) bool { return bytes.IndexByte(text, '!') >= 0 }

// plainValue returns the value of a node that has no aliases, no tags, and no scalar that
// YAML 1.1 and 1.2 read differently.
func plainValue(node *yaml.Node) (value any, sure bool) {
	switch node.Kind {
	case yaml.MappingNode:
		object := make(map[string]any, len(node.Content)/2)
		for i := 0; i+1 < len(node.Content); i += 2 {
			key, is := plainValue(node.Content[i])
			name, isString := key.(string)
			member, sure := plainValue(node.Content[i+1])
			if _, again := object[name]; !is || !isString || !sure || again || node.Content[i].Tag == "!!merge" {
				return nil, false
			}
			object[name] = member
		}
		return object, true
	case yaml.SequenceNode:
		list := make([]any, len(node.Content))
		for i, n := range node.Content {
			if list[i], sure = plainValue(n); !sure {
				return nil, false
			}
		}
		return list, true
	case yaml.ScalarNode:
		return plainScalar(node)
	}
	return nil, false
}

func plainScalar(node *yaml.Node) (value any, sure bool) {
	quoted := node.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
	switch node.Tag {
	case "!!str":
		return node.Value, quoted || !oldBoolean(node.Value)
	case "!!int":
		n, err := strconv.ParseInt(node.Value, 10, 64)
		return n, err == nil && strconv.FormatInt(n, 10) == node.Value
	case "!!bool":
		return strings.EqualFold(node.Value, "true"), true
	case "!!null":
		return nil, true
	}
	return nil, false
}

// oldBoolean reports whether YAML 1.1 reads a scalar as true or false, and 1.2 as a string.
func oldBoolean(scalar string) bool {
	switch strings.ToLower(scalar) {
	case "y", "n", "yes", "no", "on", "off":
		return true
	}
	return false
}
