// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"bytes"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// readFile adds the objects of a file to the set.
func (s *Set) readFile(file string, text []byte) Errors {
	text = utf8Text(text)
	if len(bytes.TrimSpace(text)) == 0 {
		// An editor may truncate a file before it writes: that must not end what is
		// served.
		return Errors{{File: file, Reason: "the file is empty: remove it, or write a comment into it"}}
	}
	documents, err := readDocuments(file, text)
	var errs Errors
	for _, d := range documents {
		errs = append(errs, s.readNode(file, d.node, d.value, 0)...)
	}
	return append(errs, err...)
}

// readDocuments returns the documents of a text that is not blank.
func readDocuments(file string, text []byte) ([]document, Errors) {
	documents, err := readJSON(file, text)
	if documents == nil { // other text that begins like JSON may be YAML
		yaml, wrong := readYAML(file, text)
		if documents = yaml; wrong != nil && (err == nil || !strings.EqualFold(filepath.Ext(file), ".json")) {
			err = wrong
		} else if wrong == nil {
			err = nil
		}
	}
	return documents, err
}

// maxDepth bounds structures that aliases make endless: a List that contains itself, a
// mapping merged into itself.
const maxDepth = 8

// readNode adds the object, or the List of objects, at the node.
func (s *Set) readNode(file string, node *yaml.Node, value any, depth int) Errors {
	node = target(node)
	if depth > maxDepth {
		return Errors{{File: file, Line: node.Line, Reason: "Lists are nested too deeply"}}
	}
	if node.Tag == "!!null" {
		return nil
	}
	object, ok := value.(map[string]any)
	if node.Kind != yaml.MappingNode || !ok {
		return Errors{{File: file, Line: node.Line, Reason: "want a Kubernetes object with apiVersion and kind" + guess(node)}}
	}
	items := child(node, "items")
	if kind := child(node, "kind"); items != nil && kind != nil && strings.HasSuffix(kind.Value, "List") {
		if items = target(items); items.Kind != yaml.SequenceNode {
			return Errors{{File: file, Line: items.Line, Object: kind.Value, Reason: "items: want a list"}}
		}
		var errs Errors
		values, _ := object["items"].([]any)
		for i, item := range items.Content[:min(len(values), len(items.Content))] {
			errs = append(errs, s.readNode(file, item, values[i], depth+1)...)
		}
		return errs
	}
	errs := s.readObject(file, node, object)
	s.notePolicy(file, node, object, errs != nil)
	return errs
}

var yamlLine = regexp.MustCompile(`line (\d+): (.*)`)

// syntaxError extracts the line number from the YAML library's message, and corrects it:
// the library omits line 1, counts from 0 if something is missing, and gives no line for
// an unknown anchor.
func syntaxError(file string, text []byte, err error) *Error {
	e := &Error{File: file, Line: 1, Reason: strings.TrimPrefix(err.Error(), "yaml: ")}
	found := yamlLine.FindStringSubmatch(err.Error())
	if found != nil {
		e.Line, _ = strconv.Atoi(found[1])
		e.Reason = found[2]
	}
	if found != nil && strings.HasPrefix(e.Reason, "did not find expected") {
		e.Line++
	}
	if name, ok := strings.CutPrefix(e.Reason, "unknown anchor '"); ok {
		name, _, _ = strings.Cut(name, "'")
		before, _, _ := bytes.Cut(text, []byte("*"+name))
		e.Line = 1 + bytes.Count(before, []byte("\n"))
	}
	lines := bytes.Split(text, []byte("\n"))
	if line := lines[min(max(e.Line, 1), len(lines))-1]; bytes.HasPrefix(bytes.TrimLeft(line, " "), []byte("\t")) {
		e.Reason = "a tab character: YAML indents with spaces"
	}
	if bytes.Contains(text, []byte("{{")) {
		e.Reason += ". This looks like a template: render it first, such as with helm template"
	}
	return e
}

// target follows an alias.
func target(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

// child returns the value of a mapping's key, or nil.
func child(node *yaml.Node, key string) *yaml.Node {
	_, value := member(node, key)
	return value
}

// member returns the nodes of a key and its value, also from merged mappings (<<).
func member(node *yaml.Node, key string) (k, v *yaml.Node) { return find(node, key, 0) }

func find(node *yaml.Node, key string, depth int) (k, v *yaml.Node) {
	if node = target(node); node.Kind != yaml.MappingNode || depth > maxDepth {
		return nil, nil
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value == key {
			return node.Content[i], target(node.Content[i+1])
		}
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Tag == "!!merge" {
			return find(node.Content[i+1], key, depth+1) // a second << is rejected later
		}
	}
	return nil, nil
}

// lineOf returns the line of a field such as spec.rules[0].name or, if that does not
// exist, of the innermost parent that does.
func lineOf(node *yaml.Node, path string) int { return lineAt(node, steps(path)...) }

func lineAt(node *yaml.Node, steps ...string) int {
	line := node.Line
	for _, step := range steps {
		node = target(node)
		if i, err := strconv.Atoi(step); err == nil && node.Kind == yaml.SequenceNode {
			if i >= len(node.Content) {
				break
			}
			node = node.Content[i]
			line = node.Line
			continue
		}
		key, value := member(node, step)
		if key == nil {
			break
		}
		line, node = key.Line, value
	}
	return line
}

func steps(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' })
}
