// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"cmp"

	"go.yaml.in/yaml/v3"
)

// At returns file and line of an object by its name, such as Service default/web; "":
// there is no such object. The line is that of a value in spec, if it is there: such as
// parentRefs/web, for web somewhere in spec.parentRefs.
func (s *Set) At(name, value string) string {
	found, is := s.seen[name]
	if !is {
		return ""
	}
	return place(found.File, cmp.Or(s.lines[name][value], found.Line))
}

// linesOf returns the line where each value of an object's spec is first, by the field of
// spec that it is in.
func linesOf(object *yaml.Node) map[string]int {
	lines := map[string]int{}
	spec := child(object, "spec")
	if spec == nil || spec.Kind != yaml.MappingNode {
		return lines
	}
	for i := 1; i < len(spec.Content); i += 2 {
		addLines(spec.Content[i], spec.Content[i-1].Value+"/", lines, 0)
	}
	return lines
}

func addLines(node *yaml.Node, field string, lines map[string]int, depth int) {
	if depth > maxDepth {
		return
	}
	switch node = target(node); node.Kind {
	case yaml.ScalarNode:
		if lines[field+node.Value] == 0 {
			lines[field+node.Value] = node.Line
		}
	case yaml.SequenceNode:
		for _, item := range node.Content {
			addLines(item, field, lines, depth+1)
		}
	case yaml.MappingNode:
		for i := 1; i < len(node.Content); i += 2 {
			addLines(node.Content[i], field, lines, depth+1)
		}
	}
}
