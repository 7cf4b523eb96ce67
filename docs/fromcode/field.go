// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// field is a field of a kind, or an item of one.
type field struct {
	kind, path string
	schema     apiextv1.JSONSchemaProps
	required   bool
}

// anchor is what links to the field name: blixtpolicy-spec-health-active-fall. What is
// not renamed keeps it.
func (f field) anchor() string {
	return f.kind + "-" + strings.ToLower(strings.NewReplacer(".", "-", "[]", "").Replace(f.path))
}

// writePart writes spec or status: a heading for each of its fields, and what these
// consist of below.
func writePart(b *strings.Builder, part field) {
	heading := func(f field) {
		anchor := fmt.Sprintf("<a id=%q></a>", f.anchor())
		if !strings.Contains(f.path, ".") { // that which the heading has by itself
			anchor = ""
		}
		fmt.Fprintf(b, "\n### %s%s %s\n\n%s", anchor, kindName(f.kind), f.path, f.text(""))
	}
	fmt.Fprintf(b, "\n### %s %s\n\n%s", kindName(part.kind), part.path, part.text("")) // which has the anchor by itself
	for _, f := range part.children() {
		heading(f)
		for i, child := range f.descendants() {
			if i == 0 {
				b.WriteString("\n")
			}
			fmt.Fprintf(b, "- <a id=%q></a>`%s`: %s", child.anchor(), child.path, child.text("  "))
		}
	}
}

// kindName is how users write the kind: a heading is searched for.
func kindName(singular string) string {
	return map[string]string{"blixtpolicy": "BlixtPolicy", "blixtgatewayconfig": "BlixtGatewayConfig",
		"blixtconfig": "BlixtConfig", "nodedataplane": "NodeDataplane"}[singular]
}

// foreign are types of Kubernetes and Gateway API, which define what they consist of.
var foreign = map[string]string{
	"conditions": "Kubernetes' conditions: type, status, reason, message",
	"ancestors":  "Gateway API's PolicyAncestorStatus: ancestorRef, controllerName, conditions",
	"resources":  "Kubernetes' ResourceRequirements: requests and limits",
}

// typeOf returns the name of a foreign type; "": it is one of Blixt's.
func typeOf(name string, s apiextv1.JSONSchemaProps) string {
	if _, is := s.Properties["matchExpressions"]; is {
		return "Kubernetes' LabelSelector: matchLabels, matchExpressions"
	}
	if s.Items != nil {
		if _, is := s.Items.Schema.Properties["tolerationSeconds"]; is {
			return "Kubernetes' Tolerations"
		}
	}
	return foreign[name]
}

func (f field) name() string { return f.path[strings.LastIndex(f.path, ".")+1:] }

// children are the fields of an object, or of a list's items.
func (f field) children() []field {
	schema, path := f.schema, f.path
	if typeOf(f.name(), schema) != "" {
		return nil
	}
	if schema.Items != nil {
		schema, path = *schema.Items.Schema, path+"[]"
		if typeOf("", schema) != "" {
			return nil
		}
	}
	var all []field
	for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
		all = append(all, field{f.kind, path + "." + name, schema.Properties[name], slices.Contains(schema.Required, name)})
	}
	// What must be there comes first.
	slices.SortStableFunc(all, func(a, b field) int {
		switch {
		case a.required == b.required:
			return 0
		case a.required:
			return -1
		}
		return 1
	})
	return all
}

// descendants are all fields below, each before its own.
func (f field) descendants() (all []field) {
	for _, child := range f.children() {
		all = append(append(all, child), child.descendants()...)
	}
	return all
}

// text is what there is to say about a field: its type and limits, its description, and
// what is refused. Lines after the first are indented.
func (f field) text(indent string) string {
	facts := f.facts()
	if f.required {
		facts = append(facts, "required")
	}
	if d := f.schema.Default; d != nil && string(d.Raw) != "{}" {
		facts = append(facts, "default `"+plain(d.Raw)+"`")
	}
	text := "*" + strings.Join(facts, ", ") + "*."
	if description := f.description(); description != "" {
		text += " " + description
	}
	rules := f.schema.XValidations
	if f.schema.Items != nil {
		rules = slices.Concat(rules, f.schema.Items.Schema.XValidations)
	}
	if len(rules) > 0 {
		text += "\n\nRefused with: " + messages(rules)
	}
	return strings.ReplaceAll(text, "\n\n", "\n\n"+indent) + "\n"
}

// description is the first paragraph of what others say, and all of what Blixt says.
func (f field) description() string {
	text := f.schema.Description
	if text == "" && f.schema.Items != nil {
		text = f.schema.Items.Schema.Description
	}
	if first, _, more := strings.Cut(text, "\n\n"); more && strings.ToUpper(text[:1]) == text[:1] {
		text = first
	}
	return prose(text)
}

// messages are what the API server says of what breaks the rules.
func messages(rules []apiextv1.ValidationRule) string {
	all := make([]string, len(rules))
	for i, r := range rules {
		switch {
		case r.Message != "":
			all[i] = "“" + escape(r.Message) + "”"
		case r.MessageExpression != "":
			all[i] = "what `" + r.MessageExpression + "` says"
		default:
			all[i] = "`" + r.Rule + "`"
		}
	}
	return strings.Join(all, " · ")
}

// facts are the type of a field and its limits.
func (f field) facts() []string {
	s := f.schema
	if t := typeOf(f.name(), s); t != "" {
		return append([]string{t}, limits(s)...)
	}
	if s.Items == nil {
		return append([]string{typeName(s)}, limits(s)...)
	}
	item := *s.Items.Schema
	if t := typeOf("", item); t != "" {
		return append([]string{"list of " + t}, limits(s)...)
	}
	facts := append([]string{"list of " + plural(typeName(item))}, limits(s)...)
	for _, l := range limits(item) {
		facts = append(facts, "each "+l)
	}
	return facts
}

func plural(name string) string {
	if strings.HasSuffix(name, "string") || strings.HasSuffix(name, "object") || strings.HasSuffix(name, "integer") {
		return name + "s"
	}
	return name
}

// typeName is a type in words.
func typeName(s apiextv1.JSONSchemaProps) string {
	switch {
	case s.XIntOrString:
		return "integer or string"
	case s.Format == "date-time":
		return "time"
	case s.Format == "byte":
		return "base64 string"
	case s.Format == "int64":
		return "integer of 64 bits"
	case isDuration(s):
		return "duration"
	}
	return s.Type
}

// isDuration reports whether a rule parses the value as a duration.
func isDuration(s apiextv1.JSONSchemaProps) bool {
	return s.Type == "string" && slices.ContainsFunc(s.XValidations, func(r apiextv1.ValidationRule) bool {
		return strings.Contains(r.Rule, "duration(self)")
	})
}

// patterns have names, by which Kubernetes' own documents call them.
var patterns = map[string]string{
	`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`:                                      "a DNS label",
	`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`:    "a DNS subdomain",
	`^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`: "a DNS subdomain or nothing",
	`^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$`:                                "a kind",
}

// limits are what values are allowed, in words.
func limits(s apiextv1.JSONSchemaProps) (all []string) {
	if len(s.Enum) > 0 {
		values := make([]string, len(s.Enum))
		for i, e := range s.Enum {
			values[i] = "`" + plain(e.Raw) + "`"
		}
		all = append(all, "one of "+strings.Join(values, ", "))
		if len(s.Enum) == 1 {
			all[len(all)-1] = "only " + values[0]
		}
	}
	bounds := func(least, most *float64, what string) {
		switch {
		case least != nil && most != nil:
			all = append(all, fmt.Sprintf("%.f to %.f%s", *least, *most, what))
		case least != nil:
			all = append(all, fmt.Sprintf("%.f%s or more", *least, what))
		case most != nil:
			all = append(all, fmt.Sprintf("at most %.f%s", *most, what))
		}
	}
	bounds(s.Minimum, s.Maximum, "")
	if !isDuration(s) { // its length says nothing
		bounds(float(s.MinLength), float(s.MaxLength), " characters")
	}
	bounds(float(s.MinItems), float(s.MaxItems), " items")
	if s.Pattern != "" {
		if name := patterns[s.Pattern]; name != "" {
			all = append(all, name)
		} else {
			all = append(all, "as `"+s.Pattern+"`")
		}
	}
	if s.XListType != nil && *s.XListType == "set" {
		all = append(all, "no two the same")
	}
	if s.XListType != nil && *s.XListType == "map" {
		all = append(all, "one for each "+strings.Join(s.XListMapKeys, ", "))
	}
	return all
}

func float(n *int64) *float64 {
	if n == nil {
		return nil
	}
	return new(float64(*n))
}

// plain is a value of JSON as YAML has it in one line.
func plain(raw []byte) string {
	var value any
	if err := json.Unmarshal(raw, &value); err != nil {
		return string(raw)
	}
	switch v := value.(type) {
	case string:
		return v
	default:
		return string(raw)
	}
}
