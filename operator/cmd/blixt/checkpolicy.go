// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"hash/fnv"
	"reflect"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/source"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// policyChange is a value of BlixtPolicies that would change for a listener.
type policyChange struct {
	Gateway  string `json:"gateway"`
	Listener string `json:"listener"`
	Field    string `json:"field"`
	// Was and Will are values in words, with the policy that says so; "": there is none.
	Was  string `json:"was,omitempty"`
	Will string `json:"will,omitempty"`
}

// restricted returns the listeners that policies concern.
func restricted(p *standalone.Preview) []gateway.Explained {
	return slices.DeleteFunc(p.Explain(), func(x gateway.Explained) bool { return len(x.Policies) == 0 })
}

// policyChanges returns what other policies than those of the load balancer's own files make of the
// listeners. Policies are not in the maps by name, so what it reads now is compared with what it
// would read.
func (o *checkOptions) policyChanges(will *standalone.Preview) ([]policyChange, error) {
	own := o.PreviewOptions
	own.Files.Paths, own.Files.Recursive, own.Files.Given = o.Like.Files, o.Like.Recursive, o.Like.Given
	if slices.Contains(own.Files.Paths, source.Stdin) || reflect.DeepEqual(own.Files.Paths, o.Files.Paths) && reflect.DeepEqual(own.Files.Given, o.Files.Given) {
		return nil, nil
	}
	was, err := standalone.NewPreview(own)
	if err != nil || was.State == nil {
		return nil, err
	}
	return comparePolicies(was.Explain(), will.Explain(), was.State.Sources, will.State.Sources), nil
}

// comparePolicies compares listeners that are there before and after.
func comparePolicies(was, will []gateway.Explained, wasSources, willSources []lb.SourceSet) (all []policyChange) {
	before := map[[2]string]*gateway.Explained{}
	for i := range was {
		before[[2]string{was[i].Gateway, was[i].Listener}] = &was[i]
	}
	for i := range will {
		is := &will[i]
		b := before[[2]string{is.Gateway, is.Listener}]
		if b == nil {
			continue
		}
		x, y := valueTexts(b, wasSources), valueTexts(is, willSources)
		for _, field := range fieldsOf(b, is) {
			if x[field] != y[field] {
				all = append(all, policyChange{is.Gateway, is.Listener, field, x[field], y[field]})
			}
		}
	}
	return all
}

// fieldsOf returns the fields of two versions of a listener, in order.
func fieldsOf(all ...*gateway.Explained) []string {
	var fields []string
	for _, x := range all {
		for _, v := range x.Values {
			if !slices.Contains(fields, v.Field) {
				fields = append(fields, v.Field)
			}
		}
		if x.Refused != "" && !slices.Contains(fields, "refused") {
			fields = append(fields, "refused")
		}
	}
	return fields
}

// valueTexts returns values by field. Lists of sources, of which the words show a part, have their
// size and sum.
func valueTexts(x *gateway.Explained, sources []lb.SourceSet) map[string]string {
	of := map[string][]string{}
	for _, v := range x.Values {
		text := v.Value
		if v.Policy != "" {
			text += " (" + v.Policy + ")"
		}
		if i := slices.IndexFunc(sources, func(s lb.SourceSet) bool { return s.Policy == v.Policy }); i >= 0 && v.Field == "sources" {
			if n := len(sources[i].Allow) + len(sources[i].Deny); n > 5 {
				text += fmt.Sprintf(", %s networks, sum %08x", phrase.Number(n), sourcesSum(&sources[i]))
			}
		}
		of[v.Field] = append(of[v.Field], text)
	}
	texts := map[string]string{}
	for field, all := range of {
		texts[field] = strings.Join(all, " and ")
	}
	if x.Refused != "" {
		texts["refused"] = "all new connections: " + x.Refused
	}
	return texts
}

// sourcesSum tells two lists apart.
func sourcesSum(s *lb.SourceSet) uint32 {
	h := fnv.New32a()
	fmt.Fprintln(h, s.OnlyAllowed, s.Allow, s.Deny)
	return h.Sum32()
}

// printPolicies prints which policies concern which listener.
func printPolicies(w printer, all []gateway.Explained) {
	if len(all) == 0 {
		return
	}
	w.printf("\n")
	t, flush := newTable(w)
	t.printf("GATEWAY\tLISTENER\tPOLICIES\n")
	for _, x := range all {
		t.printf("%s\t%s\t%s\n", x.Gateway, x.Listener, phrase.Sample(x.Policies))
	}
	flush()
	for _, x := range all {
		if x.Refused != "" {
			w.printf("Listener %s of Gateway %s would get no new connections: %s\n", x.Listener, x.Gateway, x.Refused)
		}
	}
	w.printf("\nblixt policy, with the same -f, tells what they say.\n")
}

// printPolicyChanges prints what would change of them.
func printPolicyChanges(w printer, all []policyChange) {
	for _, c := range all {
		w.printf("  listener %s of Gateway %s, %s\n", c.Listener, c.Gateway, c.Field)
		if c.Was != "" {
			w.printf("-     %s\n", c.Was)
		}
		if c.Will != "" {
			w.printf("+     %s\n", c.Will)
		}
	}
}
