// SPDX-License-Identifier: Apache-2.0

// Package audit compares what runs on the nodes of a cluster with what was
// declared. Read gets Facts from the API server and ReadImages from registries; Audit
// derives a Report from them: which node runs which bytecode, who may change it, and
// what is not as declared. Audit is pure. Nothing is written.
package audit

import (
	"cmp"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// Severity of a Problem.
type Severity string

// The severities.
const (
	// Failed: something is not as declared.
	Failed Severity = "failed"
	// Warning: everything is as declared, but deserves a look.
	Warning Severity = "warning"
)

// The reasons of Problems.
const (
	AnotherDigest    = "AnotherDigest"
	AnotherSpec      = "AnotherSpec"
	AnotherProgram   = "AnotherProgram"
	AnotherLayout    = "AnotherLayout"
	ProgramMissing   = "ProgramMissing"
	LinkMissing      = "LinkMissing"
	OldGeneration    = "OldGeneration"
	ForeignWriter    = "ForeignWriter"
	ForeignManager   = "ForeignManager"
	NotReady         = "NotReady"
	Drifted          = "Drifted"
	Silent           = "Silent"
	NobodysProgram   = "NobodysProgram"
	ProgramBefore    = "ProgramBefore"
	ImageNotFound    = "ImageNotFound"
	ImageNotVerified = "ImageNotVerified"
	ImageUnread      = "ImageUnread"
	NoKeys           = "NoKeys"
	ForeignMount     = "ForeignMount"
	MapsOpen         = "MapsOpen"
	Unread           = "Unread"
)

// Problem is something that is not as declared, or deserves a look.
type Problem struct {
	Severity Severity `json:"severity"`
	Reason   string   `json:"reason"`
	// Object is the kind and name of an object, and Node its node; "": none.
	Object  string `json:"object"`
	Node    string `json:"node,omitempty"`
	Message string `json:"message"`
}

// Report of an audit.
type Report struct {
	Time time.Time `json:"time"`
	// Declared is the image that nodes are to run; "": none is declared.
	Declared string    `json:"declared"`
	Programs []Program `json:"programs"`
	Images   []Image   `json:"images,omitempty"`
	Writers  []Writer  `json:"writers"`
	Problems []Problem `json:"problems"`
}

// Program describes a program of Blixt on a node, as bpfman and its agent report it.
type Program struct {
	Node        string `json:"node"`
	Application string `json:"application"`
	Image       string `json:"image"`
	Digest      string `json:"digest"`
	// SignedBy is the fingerprint of the key with which the operator has verified the
	// image.
	SignedBy string `json:"signedBy,omitempty"`
	// ID in the kernel; nil: the program is not loaded.
	ID    *int64                `json:"programID"`
	Links []v1alpha1.LinkStatus `json:"links"`
	// Layout, Draining, Frontends and Backends are what its agent reports of its maps.
	Layout    int32 `json:"layout"`
	Draining  bool  `json:"draining"`
	Frontends int32 `json:"frontends"`
	Backends  int32 `json:"backends"`
	// Since is when bpfman loaded the program, and AckedAt when its agent last wrote
	// its maps.
	Since   *metav1.Time          `json:"since"`
	Version v1alpha1.StateVersion `json:"version"`
	AckedAt *metav1.Time          `json:"ackedAt"`
}

// Failures returns the number of problems that are not warnings.
func (r *Report) Failures() (n int) {
	for i := range r.Problems {
		if r.Problems[i].Severity == Failed {
			n++
		}
	}
	return n
}

// Audit compares the Facts with what they declare.
func Audit(f *Facts) *Report {
	a := &auditor{Facts: f, report: &Report{Time: f.Now, Images: f.Images, Programs: []Program{}, Writers: []Writer{}, Problems: []Problem{}}}
	for kind, why := range f.Unread {
		a.failed(Unread, kind, "", "cannot be read, so the audit does not cover it: %s", why)
	}
	a.declare()
	a.applications()
	for i := range f.States {
		a.state(&f.States[i])
	}
	a.missing()
	for i := range f.Dataplanes {
		a.dataplane(&f.Dataplanes[i])
	}
	a.images()
	a.keys()
	a.maps()
	a.report.Writers = append(a.report.Writers, writers(f)...)
	slices.SortFunc(a.report.Programs, func(a, b Program) int {
		return cmp.Or(strings.Compare(a.Node, b.Node), strings.Compare(a.Application, b.Application))
	})
	slices.SortFunc(a.report.Problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Message, b.Message))
	})
	return a.report
}
