// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	sigsjson "sigs.k8s.io/json"
)

// readObject adds the object at the node to the set, or to its ignored objects.
func (s *Set) readObject(file string, node *yaml.Node, object map[string]any) Errors {
	found := Object{File: file, Line: node.Line}
	found.APIVersion, found.Kind, found.Name = scalar(node, "apiVersion"), scalar(node, "kind"), scalar(child(node, "metadata"), "name")
	fail := func(line int, reason string) Errors {
		return Errors{{File: file, Line: line, Object: found.String(), Reason: reason}}
	}
	if found.APIVersion == "" || found.Kind == "" {
		return fail(node.Line, noObject(node, found))
	}
	k, field, why := findKind(found.APIVersion, found.Kind)
	if why != "" {
		return fail(lineOf(node, field), why)
	}
	namespace := scalar(child(node, "metadata"), "namespace")
	if namespace == "" && (k == nil || k.namespaced) {
		namespace = metav1.NamespaceDefault
	}
	if k == nil {
		found.Name = strings.TrimSuffix(namespace+"/"+found.Name, "/")
		s.Ignored = append(s.Ignored, found)
		return nil
	}
	if k.namespaced {
		found.Name = namespace + "/" + found.Name
	}
	if first, again := s.seen[found.String()]; again {
		return Errors{duplicate(found, first)}
	}
	s.seen[found.String()] = found
	if found.Kind != "EndpointSlice" {
		s.lines[found.String()] = linesOf(node)
	}

	if errs := repeated(file, found.String(), node); errs != nil {
		return errs
	}
	delete(object, "status") // it is a controller's report, not what is wanted
	var wrong []invalid
	if k.schema != nil {
		wrong = k.schema.check(object, "")
	}
	metadata, ok := object["metadata"].(map[string]any)
	if !ok {
		return fail(node.Line, "metadata.name is needed")
	}
	delete(metadata, "namespace")
	if k.namespaced {
		metadata["namespace"] = namespace
	}
	wrong = s.decode(k, object, wrong)
	return reports(file, node, found.String(), wrong)
}

// decode adds the object, as its Go type, to the set. It returns what is wrong with the
// object, in addition to what is known to be wrong.
func (s *Set) decode(k *kind, object map[string]any, wrong []invalid) []invalid {
	text, err := json.Marshal(object)
	if err != nil { // a key that is not a string, or a number that is none
		return append(wrong, invalid{reason: strings.TrimPrefix(err.Error(), "json: ")})
	}
	told := len(wrong) > 0
	more, err := k.add(s, text)
	wrong = append(wrong, more...)
	var mismatch *json.UnmarshalTypeError
	switch {
	case errors.As(err, &mismatch):
		path := pathAt(text, mismatch.Offset)
		if !slices.ContainsFunc(wrong, func(w invalid) bool { return w.path == path }) {
			remedy := quotes(mismatch.Type.Kind() == reflect.String && mismatch.Value != "object" && mismatch.Value != "array", mismatch.Value)
			wrong = append(wrong, invalid{path, fmt.Sprintf("want %s, got %s", typeName(mismatch.Type), mismatch.Value) + remedy})
		}
	case err != nil && !told: // a schema has said which field it is
		wrong = append(wrong, invalid{reason: strings.TrimPrefix(err.Error(), "json: ")})
	}
	return wrong
}

// typeName returns the name of a field's type in YAML.
func typeName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Map, reflect.Struct:
		return "a mapping"
	}
	return "an integer" // no field of these kinds is a fraction
}

// strict decodes JSON the way the API server does.
func strict(text []byte, into any) ([]invalid, error) {
	unknown, err := sigsjson.UnmarshalStrict(text, into)
	var wrong []invalid
	for _, e := range unknown {
		at := ""
		var field sigsjson.FieldError
		if errors.As(e, &field) {
			at = field.FieldPath()
		}
		wrong = append(wrong, invalid{at, "unknown field"})
	}
	return wrong, err
}

// reports returns Errors with file and line, without duplicates.
func reports(file string, node *yaml.Node, object string, wrong []invalid) Errors {
	var errs Errors
	for i, w := range wrong {
		if slices.Contains(wrong[:i], w) {
			continue
		}
		reason := w.String()
		if w.reason == "unknown field" {
			reason = fmt.Sprintf("unknown field %q", w.path)
		}
		errs = append(errs, &Error{File: file, Line: lineOf(node, w.path), Object: object, Reason: reason})
	}
	return errs
}

// pathAt returns the path of the JSON value that ends at or after the offset.
func pathAt(text []byte, offset int64) string {
	type level struct {
		key   string
		index int
		array bool
	}
	var stack []level
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	expectKey := false
	path := func() string {
		var b strings.Builder
		for _, l := range stack {
			if l.array {
				fmt.Fprintf(&b, "[%d]", l.index)
			} else {
				if b.Len() > 0 {
					b.WriteByte('.')
				}
				b.WriteString(l.key)
			}
		}
		return b.String()
	}
	value := func() { // a value is complete: what comes next?
		if n := len(stack); n > 0 && stack[n-1].array {
			stack[n-1].index++
		} else {
			expectKey = n > 0
		}
	}
	for {
		token, err := decoder.Token()
		if err != nil {
			return ""
		}
		delim, isDelim := token.(json.Delim)
		switch {
		case isDelim && (delim == '{' || delim == '['):
			if decoder.InputOffset() >= offset {
				return path()
			}
			stack = append(stack, level{array: delim == '['})
			expectKey = delim == '{'
		case isDelim:
			stack = stack[:len(stack)-1]
			value()
		case expectKey:
			stack[len(stack)-1].key, expectKey = token.(string), false
		default:
			if decoder.InputOffset() >= offset {
				return path()
			}
			value()
		}
	}
}

func scalar(node *yaml.Node, key string) string {
	if node == nil {
		return ""
	}
	if v := child(node, key); v != nil && v.Kind == yaml.ScalarNode && v.Tag != "!!null" {
		return v.Value
	}
	return ""
}
