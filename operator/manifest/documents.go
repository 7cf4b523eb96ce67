// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"bytes"
	"cmp"
	"slices"

	"go.yaml.in/yaml/v3"
)

// Document is one YAML document or JSON value of a file, with the lines of its parts.
type Document struct {
	// Value is what an API server would get: maps with string keys, lists, strings, numbers
	// (int64 or float64), bool and nil.
	Value any
	node  *yaml.Node
}

// Documents returns what a file consists of, whatever it means, and an error for each
// document that cannot be read. A file without text, and a document without anything but
// comments, are none.
func Documents(file string, text []byte) ([]Document, Errors) {
	text = utf8Text(text)
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, nil
	}
	found, errs := readDocuments(file, text)
	all := make([]Document, len(found))
	for i, d := range found {
		all[i] = Document{d.value, target(d.node)}
	}
	return all, errs
}

// Line returns the line of a field, of which steps are the keys and the indexes of lists,
// or, if that does not exist, of the innermost parent that does.
func (d Document) Line(steps ...string) int { return lineAt(d.node, steps...) }

// Items returns the items of a list; nil: the document is none.
func (d Document) Items() []Document {
	values, _ := d.Value.([]any)
	if d.node.Kind != yaml.SequenceNode {
		return nil
	}
	items := make([]Document, min(len(values), len(d.node.Content)))
	for i := range items {
		items[i] = Document{values[i], target(d.node.Content[i])}
	}
	return items
}

// Field is a key of a mapping with its value.
type Field struct {
	Key  string
	Line int
	Document
}

// Fields returns what a mapping has, by line; nil: the document is none.
func (d Document) Fields() []Field {
	values, _ := d.Value.(map[string]any)
	if d.node.Kind != yaml.MappingNode {
		return nil
	}
	at := make(map[string]int, len(d.node.Content)/2)
	for i := 0; i+1 < len(d.node.Content); i += 2 {
		at[d.node.Content[i].Value] = i
	}
	fields := make([]Field, 0, len(values))
	for key, value := range values {
		f := Field{key, d.node.Line, Document{value, d.node}} // merged (<<), or a key such as 0x50
		if i, is := at[key]; is {
			f.Line, f.node = d.node.Content[i].Line, target(d.node.Content[i+1])
		} else if _, of := find(d.node, key, 0); of != nil {
			f.Line, f.node = of.Line, of
		}
		fields = append(fields, f)
	}
	slices.SortFunc(fields, func(a, b Field) int { return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Key, b.Key)) })
	return fields
}

// Child returns what is at a key.
func (d Document) Child(key string) (Document, bool) {
	object, _ := d.Value.(map[string]any)
	value, is := object[key]
	node := child(d.node, key)
	if !is || node == nil {
		return Document{}, false
	}
	return Document{value, node}, true
}
