// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"strings"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

// auditor collects a Report about Facts.
type auditor struct {
	*Facts
	report *Report
	// spec is the declared data plane, and wanted the name of its application.
	spec   v1alpha1.Dataplane
	wanted string
}

func (a *auditor) failed(reason, object, node, format string, args ...any) {
	a.problem(Failed, reason, object, node, fmt.Sprintf(format, args...))
}

func (a *auditor) warn(reason, object, node, format string, args ...any) {
	a.problem(Warning, reason, object, node, fmt.Sprintf(format, args...))
}

func (a *auditor) problem(s Severity, reason, object, node, message string) {
	a.report.Problems = append(a.report.Problems, Problem{Severity: s, Reason: reason, Object: object, Node: node, Message: message})
}

// declare sets what is declared.
func (a *auditor) declare() {
	a.spec, a.report.Declared = Declared(a.Facts)
	if a.report.Declared != "" {
		a.wanted = rollout.Name(a.report.Declared)
	}
}

// Declared returns the data plane in force, and its image: the BlixtConfig's or, if
// that names none, the one of the operator's arguments. "": none is declared.
func Declared(f *Facts) (v1alpha1.Dataplane, string) {
	release := rollout.Release{}
	if d := kube.Named(f.Deployments, v1alpha1.Operator); d != nil {
		for _, c := range d.Spec.Template.Spec.Containers {
			for _, arg := range c.Args {
				if image, is := strings.CutPrefix(arg, "--bytecode="); is {
					release.Bytecode = image
				}
			}
		}
	}
	t := gateway.Translate(gateway.Objects{GatewayClasses: f.Classes, Configs: f.Configs}, gateway.Options{Cluster: &gateway.Cluster{}})
	if len(t.Classes) == 0 { // there is nothing to serve
		return rollout.Default(nil, release, f.Nodes), ""
	}
	spec := rollout.Default(t.DataplaneSpec(), release, f.Nodes)
	return spec, spec.Bytecode.Image
}

// application returns an application of Blixt; nil: there is none of that name, or it
// is not Blixt's.
func (a *auditor) application(name string) *bpfmanv1.ClusterBpfApplication {
	o := kube.Named(a.Applications, name)
	if o == nil || !v1alpha1.Managed(o) && name != a.wanted {
		return nil
	}
	return o
}

// selected reports whether the declared data plane selects a node.
func (a *auditor) selected(node string) bool {
	n := kube.Named(a.Nodes, node)
	return n != nil && rollout.Selector(a.spec).Matches(labels.Set(n.Labels))
}

// stored returns what the operator has written about an application on a node; nil:
// nothing.
func (a *auditor) stored(node, application string) *v1alpha1.ApplicationStatus {
	d := kube.Named(a.Dataplanes, node)
	if d == nil {
		return nil
	}
	for i := range d.Status.Applications {
		if s := &d.Status.Applications[i]; s.Name == application {
			return s
		}
	}
	return nil
}
