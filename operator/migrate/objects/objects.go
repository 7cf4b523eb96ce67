// SPDX-License-Identifier: Apache-2.0

// Package objects reads Kubernetes objects from files, such as a dump of kubectl, for
// packages that migrate what these objects say. It is pure, and knows where each field is.
package objects

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/manifest"
	"github.com/kubernetes-sigs/blixt/operator/migrate"
)

// Object is a Kubernetes object of a file, or a mapping that is none, such as values of
// Helm: its Kind is "".
type Object struct {
	File                              string
	APIVersion, Kind, Namespace, Name string
	manifest.Document
}

// String returns kind, namespace and name.
func (o *Object) String() string {
	if o.Namespace == "" {
		return strings.TrimSpace(o.Kind + " " + o.Name)
	}
	return o.Kind + " " + o.Namespace + "/" + o.Name
}

// At returns the place of a field, of which steps are keys and indexes of lists.
func (o *Object) At(steps ...string) migrate.Place {
	return migrate.Place{File: o.File, Line: o.Line(steps...)}
}

// maxDepth is how deep Lists may contain each other.
const maxDepth = 8

// maxBytes is how large files may be together. Objects take fifty times as much memory.
const maxBytes = 32 << 20

// Read returns what is in files, in order. A file that cannot be parsed breaks the plan, and so do
// files in which nothing is an object. Otherwise what is none, or differs from one of that name
// before it, is noted in the plan.
func Read(files []migrate.File, plan *migrate.Plan) []*Object {
	size := 0
	for _, f := range files {
		if size += len(f.Text); size > maxBytes {
			plan.Broken = true
			plan.Note(migrate.Place{File: f.Name}, migrate.Lost, "there are more than %d MiB: give fewer objects at once, such as those of one namespace", maxBytes>>20)
			return nil
		}
	}
	r := reader{plan: plan, seen: map[string]*Object{}}
	for _, f := range files {
		documents, errs := manifest.Documents(f.Name, f.Text)
		for _, e := range errs {
			plan.Note(migrate.Place{File: f.Name, Line: e.Line}, migrate.Lost, "not read: %s", e.Reason)
			plan.Broken = true
		}
		for _, d := range documents {
			r.read(f.Name, d, 0)
		}
	}
	if r.all == nil && len(plan.Notes) > 0 { // it is something else
		plan.Broken = true
	}
	return r.all
}

type reader struct {
	plan *migrate.Plan
	all  []*Object
	seen map[string]*Object
}

func (r *reader) read(file string, d manifest.Document, depth int) {
	o := &Object{File: file, Document: d}
	lost := func(format string, args ...any) { r.plan.Note(o.At(), migrate.Lost, format, args...) }
	switch d.Value.(type) {
	case nil:
		return
	case map[string]any:
	default:
		lost("not read: want objects of Kubernetes, with apiVersion and kind")
		return
	}
	o.APIVersion, o.Kind = text(d, "apiVersion"), text(d, "kind")
	if items, is := d.Child("items"); is && strings.HasSuffix(o.Kind, "List") {
		if depth == maxDepth {
			lost("not read: Lists are nested too deeply")
			return
		}
		if _, is := items.Value.([]any); !is && items.Value != nil {
			lost("not read: items of %s are no list", o.Kind)
			return
		}
		for _, item := range items.Items() {
			r.read(file, item, depth+1)
		}
		return
	}
	if metadata, is := d.Child("metadata"); is && o.Kind != "" {
		o.Name, o.Namespace = text(metadata, "name"), text(metadata, "namespace")
	}
	if o.Kind != "" && o.APIVersion != "" && r.repeats(o) {
		return
	}
	r.all = append(r.all, o)
}

// repeats reports whether there was an object of that name before.
func (r *reader) repeats(o *Object) bool {
	if o.Name == "" {
		return false
	}
	key := o.APIVersion + " " + o.String()
	first := r.seen[key]
	if first == nil {
		r.seen[key] = o
		return false
	}
	if !reflect.DeepEqual(first.Value, o.Value) {
		r.plan.Note(o.At(), migrate.Lost, "%s is at %s already, and differs: this one is passed over. Give each object once", o, first.At())
	}
	return true
}

func text(d manifest.Document, key string) string {
	v, _ := d.Child(key)
	s, _ := v.Value.(string)
	return s
}

// types are those of JSON as people call them in YAML.
var types = map[string]string{"array": "a list", "object": "a mapping", "string": "text", "number": "a number", "bool": "true or false"}

// Named reports whether a namespaced object has a name and a namespace that an API server takes.
// If not, that is noted in the plan.
func (o *Object) Named(plan *migrate.Plan) bool {
	why := ""
	switch {
	case o.Name == "":
		why = "metadata.name is needed"
	case len(content.IsDNS1123Subdomain(o.Name)) > 0:
		why = fmt.Sprintf("%q is no name of an object", o.Name)
	case o.Namespace != "" && len(content.IsDNS1123Label(o.Namespace)) > 0:
		why = fmt.Sprintf("%q is no name of a namespace", o.Namespace)
	default:
		return true
	}
	plan.Note(o.At("metadata"), migrate.Lost, "%s is not read: %s", o, why)
	return false
}

// Decode reads a namespaced object as what it is in Go. If it is not of the right form, that is
// noted in the plan, and ok is false. Fields that are not known there are ignored.
func (o *Object) Decode(into metav1.Object, plan *migrate.Plan) (ok bool) {
	lost := func(steps []string, reason string) bool {
		plan.Note(o.At(steps...), migrate.Lost, "%s is not read: %s", o, reason)
		return false
	}
	if !o.Named(plan) {
		return false
	}
	asJSON, err := json.Marshal(o.Value)
	if err == nil {
		err = json.Unmarshal(asJSON, into)
	}
	if wrong, is := errors.AsType[*json.UnmarshalTypeError](err); is {
		return lost(strings.Split(wrong.Field, "."), fmt.Sprintf("%s cannot be %s", wrong.Field, cmp.Or(types[wrong.Value], wrong.Value)))
	}
	if err != nil {
		return lost(nil, strings.TrimPrefix(err.Error(), "json: "))
	}
	if into.GetNamespace() == "" {
		into.SetNamespace(metav1.NamespaceDefault)
	}
	return true
}
