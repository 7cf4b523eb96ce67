// SPDX-License-Identifier: Apache-2.0

// Package manifest reads Kubernetes YAML and JSON as an API server does, and as strictly,
// with the defaults and the validation of the CRDs.
//
// In goes the text of a file, with any number of documents or Lists. Out come
// gateway.Objects and EndpointSlices, and all errors at once, each with file, line and
// reason.
package manifest

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	discoveryv1 "k8s.io/api/discovery/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// Set is the contents of a file, or of several.
type Set struct {
	Objects        gateway.Objects
	EndpointSlices []discoveryv1.EndpointSlice
	// Ignored are objects of kinds that Blixt does not read.
	Ignored []Object
	// Files are the names of the files read, sorted.
	Files []string

	seen     map[string]Object
	policies []Policy
	// lines are those of values in spec, by object. Those of EndpointSlices are many.
	lines map[string]map[string]int
}

// Object names an object and where it was found.
type Object struct {
	File string
	Line int
	// Kind is as in the file; Name includes the namespace, if there is one.
	APIVersion, Kind, Name string
}

// Place returns file and line.
func (o Object) Place() string { return place(o.File, o.Line) }

// place returns a file with a line; 0: it has none.
func place(file string, line int) string {
	if line == 0 {
		return file
	}
	return fmt.Sprintf("%s:%d", file, line)
}

// String returns kind and name.
func (o Object) String() string { return strings.TrimSpace(o.Kind + " " + o.Name) }

// Parse reads the text of one file. The Set holds what could be read even if there are
// Errors, for callers that say what else is wrong; nobody should serve it.
func Parse(file string, text []byte) (*Set, Errors) {
	set := &Set{Files: []string{file}, seen: map[string]Object{}, lines: map[string]map[string]int{}}
	errs := set.readFile(file, text)
	slices.SortStableFunc(errs, (*Error).compare)
	return set, errs
}

// ParsePlace reads text that is in no file, but was made from what people wrote elsewhere.
// At and errors name that place, without a line.
func ParsePlace(place string, text []byte) (*Set, Errors) {
	set, errs := Parse(place, text)
	clear(set.lines)
	for i := range set.policies {
		set.policies[i].Line = 0
	}
	for name, o := range set.seen {
		o.Line = 0
		set.seen[name] = o
	}
	for _, e := range errs {
		e.Line = 0
	}
	return set, errs
}

// Defined returns the objects that the set has, by kind and name.
func (s *Set) Defined() map[string]Object {
	if s == nil {
		return nil
	}
	return s.seen
}

// Defines reports whether the set has an object of this kind and name.
func (s *Set) Defines(name string) bool {
	_, is := s.Defined()[name]
	return is
}

// DiffersByEndpoints reports whether the set has the same objects as another one, but for
// the contents of EndpointSlices, and for lines.
func (s *Set) DiffersByEndpoints(from *Set) bool {
	if s == nil || from == nil || len(s.seen) != len(from.seen) || !reflect.DeepEqual(s.Objects, from.Objects) {
		return false
	}
	for name := range s.seen {
		if !from.Defines(name) {
			return false
		}
	}
	return true
}

// Agrees reports whether another set may define the object, too: a GatewayClass that is the
// same in both. Each file that is complete needs one.
func (s *Set) Agrees(o *Set, object string) bool {
	find := func(of *Set) int {
		return slices.IndexFunc(of.Objects.GatewayClasses, func(c gwv1.GatewayClass) bool { return "GatewayClass "+c.Name == object })
	}
	i, j := find(s), find(o)
	return i >= 0 && j >= 0 && reflect.DeepEqual(s.Objects.GatewayClasses[i], o.Objects.GatewayClasses[j])
}

// Duplicate returns an error for the first object of the set that another one defines
// already, and does not agree about; nil: there is none.
func (s *Set) Duplicate(of *Set) *Error {
	var first *Error
	for name, again := range s.seen {
		o, is := of.seen[name]
		if e := duplicate(again, o); is && (first == nil || e.compare(first) < 0) && !s.Agrees(of, name) {
			first = e
		}
	}
	return first
}

func duplicate(again, first Object) *Error {
	return &Error{File: again.File, Line: again.Line, Object: again.String(), Reason: fmt.Sprintf("is defined at %s already", first.Place())}
}

// Merge returns the objects of all sets, of which none must have a Duplicate in another.
func Merge(sets []*Set) *Set {
	n := 0
	for _, s := range sets {
		n += len(s.seen)
	}
	all := &Set{seen: make(map[string]Object, n), lines: make(map[string]map[string]int, n)}
	for _, s := range sets {
		all.Add(s)
	}
	return all
}

// Add adds the objects of another set, which must have no Duplicate in this one.
func (s *Set) Add(o *Set) {
	a, b := &s.Objects, &o.Objects
	for _, c := range b.GatewayClasses {
		if !s.Defines("GatewayClass " + c.Name) { // otherwise they agree
			a.GatewayClasses = append(a.GatewayClasses, c)
		}
	}
	a.Gateways = append(a.Gateways, b.Gateways...)
	a.ListenerSets = append(a.ListenerSets, b.ListenerSets...)
	a.TCPRoutes = append(a.TCPRoutes, b.TCPRoutes...)
	a.UDPRoutes = append(a.UDPRoutes, b.UDPRoutes...)
	a.ReferenceGrants = append(a.ReferenceGrants, b.ReferenceGrants...)
	a.Configs = append(a.Configs, b.Configs...)
	a.GatewayConfigs = append(a.GatewayConfigs, b.GatewayConfigs...)
	a.Policies = append(a.Policies, b.Policies...)
	a.Services = append(a.Services, b.Services...)
	a.Namespaces = append(a.Namespaces, b.Namespaces...)
	s.EndpointSlices = append(s.EndpointSlices, o.EndpointSlices...)
	s.Ignored = append(s.Ignored, o.Ignored...)
	s.Files = append(s.Files, o.Files...)
	if s.seen == nil {
		s.seen, s.lines = map[string]Object{}, map[string]map[string]int{}
	}
	maps.Copy(s.seen, o.seen)
	maps.Copy(s.lines, o.lines)
}

// Read reads all manifests directly in dir, once. Returns Errors if any of them is
// invalid, and another error if there are none or the directory cannot be read.
//
// A directory without manifests is being replaced, or the wrong one, more often
// than it means to serve nothing: a file with nothing but a comment means that.
func Read(dir string) (*Set, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read directory: %w", err)
	}
	set := &Set{}
	var errs Errors
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if !IsManifest(entry.Name()) || isDir(path) {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			errs = append(errs, &Error{File: entry.Name(), Reason: unwrapPath(err)})
			continue
		}
		one, wrong := Parse(entry.Name(), text)
		if errs = append(errs, wrong...); one.Duplicate(set) != nil {
			errs = append(errs, one.Duplicate(set))
		}
		set.Add(one)
	}
	if len(errs) > 0 {
		slices.SortStableFunc(errs, (*Error).compare)
		return nil, errs
	}
	if len(set.Files) == 0 {
		return nil, fmt.Errorf("read directory %s: no *.yaml, *.yml or *.json files", dir)
	}
	return set, nil
}

func isDir(path string) bool {
	info, err := os.Stat(path) // follows symlinks, of which ConfigMaps consist
	return err == nil && info.IsDir()
}

// unwrapPath returns an error's text without the path, which the caller names.
func unwrapPath(err error) string {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Op + ": " + p.Err.Error()
	}
	return err.Error()
}
