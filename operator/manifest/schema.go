// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// schemaText has the schemas of Gateway API's CRDs and of BlixtPolicy's, cut down to what decides
// whether an object is valid. The API server's own library for them would make the
// binary 10 MB (16 %) larger, and its messages do not say which item of a list
// breaks a rule.
//
//go:generate go run ./schemagen
//go:embed schema.json
var schemaText []byte

var schemas = loadSchemas()

// schema is the part of OpenAPI that the CRDs use.
type schema struct {
	Type        string             `json:"type"`
	Properties  map[string]*schema `json:"properties"`
	Values      *schema            `json:"additionalProperties"`
	Items       *schema            `json:"items"`
	Required    []string           `json:"required"`
	Enum        []any              `json:"enum"`
	Pattern     *pattern           `json:"pattern"`
	MinLength   *int               `json:"minLength"`
	MaxLength   *int               `json:"maxLength"`
	Minimum     *float64           `json:"minimum"`
	Maximum     *float64           `json:"maximum"`
	MinItems    *int               `json:"minItems"`
	MaxItems    *int               `json:"maxItems"`
	MaxEntries  *int               `json:"maxProperties"`
	Format      string             `json:"format"`
	Default     json.RawMessage    `json:"default"`
	OneOf       json.RawMessage    `json:"oneOf"`
	Validations []validation       `json:"x-kubernetes-validations"`
}

// validation is a rule of a CRD, in CEL.
type validation struct {
	Rule       string `json:"rule"`
	Message    string `json:"message"`
	Expression string `json:"messageExpression"`
}

type pattern struct{ *regexp.Regexp }

func (p *pattern) UnmarshalText(text []byte) (err error) {
	p.Regexp, err = regexp.Compile(string(text))
	return err
}

func loadSchemas() map[string]*schema {
	var all map[string]*schema
	if err := json.Unmarshal(schemaText, &all); err != nil {
		panic(fmt.Sprintf("read schema.json: %v", err)) // it is compiled in and tested
	}
	return all
}

// check sets defaults in the value, and returns what is wrong with it.
func (s *schema) check(value any, path string) []invalid {
	if why := s.mistyped(value); why != "" {
		return []invalid{{path, why}}
	}
	var wrong []invalid
	switch v := value.(type) {
	case map[string]any:
		wrong = s.checkObject(v, path)
	case []any:
		wrong = s.checkList(v, path)
	case string:
		wrong = s.checkString(v, path)
	case int64:
		wrong = s.checkNumber(float64(v), path)
	case float64:
		wrong = s.checkNumber(v, path)
	}
	if len(s.Enum) > 0 && !slices.Contains(s.Enum, value) {
		wrong = append(wrong, invalid{path, fmt.Sprintf("%s is not one of %v", text(value), s.Enum)})
	}
	if len(wrong) > 0 {
		return wrong // the rules rely on correct types
	}
	for _, validation := range s.Validations {
		if at, ok := validation.check()(value); !ok {
			wrong = append(wrong, invalid{path + at, validation.said(value)})
		}
	}
	if len(s.OneOf) > 0 && !isAddress(value) {
		wrong = append(wrong, invalid{path + ".value", "this is not an IP address"})
	}
	return wrong
}

func (s *schema) mistyped(value any) string {
	var ok bool
	switch s.Type {
	case "object":
		_, ok = value.(map[string]any)
	case "array":
		_, ok = value.([]any)
	case "string":
		_, ok = value.(string)
	case "boolean":
		_, ok = value.(bool)
	case "integer":
		f, float := value.(float64)
		_, ok = value.(int64)
		ok = ok || float && f == math.Trunc(f)
	default:
		ok = true
	}
	if ok {
		return ""
	}
	return fmt.Sprintf("want %s, got %s", map[string]string{"object": "a mapping", "array": "a list",
		"string": "a string", "boolean": "true or false", "integer": "an integer"}[s.Type], text(value)) + quotes(s.Type == "string", value)
}

// quotes returns the remedy for a scalar that YAML does not take for a string: yes, y and
// on are true.
func quotes(wantString bool, value any) string {
	switch value.(type) {
	case nil, map[string]any, []any:
		return ""
	}
	if wantString {
		return ": put it in quotes"
	}
	return ""
}

func (s *schema) checkObject(object map[string]any, path string) []invalid {
	if s.Properties == nil && s.Values == nil {
		return nil // metadata, which checkMetadata checks
	}
	var wrong []invalid
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		value, given := object[name]
		property := s.Properties[name]
		if (!given || value == nil) && len(property.Default) > 0 {
			if err := json.Unmarshal(property.Default, &value); err != nil {
				panic(fmt.Sprintf("read default of %s.%s: %v", path, name, err))
			}
			object[name], given = value, true
		}
		if given && value == nil { // null is as good as absent
			delete(object, name)
			given = false
		}
		if given {
			wrong = append(wrong, property.check(value, join(path, name))...)
		} else if slices.Contains(s.Required, name) {
			wrong = append(wrong, invalid{join(path, name), "this field is needed"})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if s.Values != nil {
			wrong = append(wrong, s.Values.check(object[name], join(path, name))...)
		} else if s.Properties[name] == nil {
			wrong = append(wrong, invalid{join(path, name), "unknown field"})
		}
	}
	if s.MaxEntries != nil && len(object) > *s.MaxEntries {
		wrong = append(wrong, invalid{path, fmt.Sprintf("%d entries are too many: at most %d", len(object), *s.MaxEntries)})
	}
	return wrong
}

func (s *schema) checkList(list []any, path string) []invalid {
	var wrong []invalid
	if s.MinItems != nil && len(list) < *s.MinItems {
		wrong = append(wrong, invalid{path, fmt.Sprintf("%d items are too few: at least %d", len(list), *s.MinItems)})
	}
	if s.MaxItems != nil && len(list) > *s.MaxItems {
		wrong = append(wrong, invalid{path, fmt.Sprintf("%d items are too many: at most %d", len(list), *s.MaxItems)})
	}
	for i, item := range list {
		wrong = append(wrong, s.Items.check(item, fmt.Sprintf("%s[%d]", path, i))...)
	}
	return wrong
}

func (s *schema) checkString(v, path string) []invalid {
	var wrong []invalid
	n := utf8.RuneCountInString(v)
	switch {
	case s.MinLength != nil && n < *s.MinLength:
		wrong = append(wrong, invalid{path, "this is empty"})
	case s.MaxLength != nil && n > *s.MaxLength:
		wrong = append(wrong, invalid{path, fmt.Sprintf("%d characters are too many: at most %d", n, *s.MaxLength)})
	case s.Pattern != nil && !s.Pattern.MatchString(v):
		reason := fmt.Sprintf("%q does not match %s", v, s.Pattern)
		if lower := strings.ToLower(v); s.Pattern.MatchString(lower) {
			reason = fmt.Sprintf("%q has capital letters: write %s", v, lower)
		}
		wrong = append(wrong, invalid{path, reason})
	case s.Format == "byte":
		if _, err := base64.StdEncoding.DecodeString(v); err != nil {
			wrong = append(wrong, invalid{path, fmt.Sprintf("%q is not base64", v)})
		}
	}
	return wrong
}

func (s *schema) checkNumber(v float64, path string) []invalid {
	switch {
	case s.Minimum != nil && v < *s.Minimum:
		return []invalid{{path, fmt.Sprintf("%v is too small: at least %v", v, *s.Minimum)}}
	case s.Maximum != nil && v > *s.Maximum:
		return []invalid{{path, fmt.Sprintf("%.0f is too large: at most %.0f", v, *s.Maximum)}}
	}
	return nil
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// text returns a value as messages show it.
func text(v any) string {
	switch v := v.(type) {
	case nil:
		return "nothing"
	case string:
		return strconv.Quote(v)
	case map[string]any:
		return "a mapping"
	case []any:
		return "a list"
	}
	return fmt.Sprint(v)
}
