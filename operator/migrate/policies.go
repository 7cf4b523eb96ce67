// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"reflect"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/manifest"
)

// policies adds those of the frontend: one about its route, and one about the ports of its
// listener.
func (b *builder) policies(f *Frontend, name string, parent gwv1.ParentReference, route gwv1.LocalPolicyTargetReference, refs []ref) {
	spec := f.Policy.DeepCopy()
	spec.Failover = failover(refs)
	if !reflect.ValueOf(*spec).IsZero() {
		spec.TargetRefs = []gwv1.LocalPolicyTargetReferenceWithSectionName{{LocalPolicyTargetReference: route}}
		own := f.routeNamespace()
		b.add(f, newPolicy(own, b.names.take("BlixtPolicy/"+own, name), *spec))
	}
	if f.EndPort <= f.Port {
		return
	}
	end := gwv1.PortNumber(f.EndPort)
	ports := &v1alpha1.PolicyPorts{EndPort: &end, Target: v1alpha1.TargetKeep}
	for _, s := range f.Backends {
		if s.Port != 0 {
			ports.Target = v1alpha1.TargetShift
		}
	}
	b.add(f, newPolicy(f.Namespace, b.names.take("BlixtPolicy/"+f.Namespace, name+"-ports"), v1alpha1.BlixtPolicySpec{
		TargetRefs: []gwv1.LocalPolicyTargetReferenceWithSectionName{sectionOf(parent)}, Ports: ports,
	}))
}

func newPolicy(namespace, name string, spec v1alpha1.BlixtPolicySpec) *v1alpha1.BlixtPolicy {
	return &v1alpha1.BlixtPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "BlixtPolicy"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: spec,
	}
}

// failover has the backup Services stand by, until none of the others is available, and gives
// connections back as soon as one is.
func failover(refs []ref) *v1alpha1.PolicyFailover {
	var standby []v1alpha1.FailoverBackend
	for _, r := range refs {
		if r.priority > 0 {
			standby = append(standby, v1alpha1.FailoverBackend{Name: gwv1.ObjectName(r.name), Priority: int32(r.priority)})
		}
	}
	if standby == nil {
		return nil
	}
	one := int32(1)
	return &v1alpha1.PolicyFailover{Backends: standby, MinAvailablePercent: &one, RecoverPercent: &one, HoldTime: &metav1.Duration{}}
}

// checkPolicy makes the policy of a frontend valid, and says which fields are left away. It reports
// whether the frontend may be served: not if the policy says who may connect, and cannot be kept.
func (f *Frontend) checkPolicy() bool {
	f.Policy = *f.Policy.DeepCopy()
	f.Policy.TargetRefs, f.Policy.Ports, f.Policy.Failover = nil, nil, nil
	f.bound()
	if invalid(f.Policy) == "" {
		return true
	}
	fields := reflect.ValueOf(&f.Policy).Elem()
	for i := range fields.NumField() {
		if fields.Field(i).Kind() != reflect.Pointer {
			continue // strategy and mode mean nothing alone
		}
		var alone v1alpha1.BlixtPolicySpec
		reflect.ValueOf(&alone).Elem().Field(i).Set(fields.Field(i))
		why := invalid(alone)
		name, _, _ := strings.Cut(fields.Type().Field(i).Tag.Get("json"), ",")
		switch {
		case why == "":
			continue
		case name == "sources":
			f.Note(f.Place, Lost, "%s is not served, as nobody would keep out whom it keeps out: %s", f.title(), why)
			return false
		case name == "health" && f.connects():
			f.Note(f.Place, Lost, "%s: its check becomes a TCP connect, as that by HTTP is not valid: %s", f.title(), why)
		default:
			f.Note(f.Place, Lost, "%s is served without %s of its policy, which is not valid: %s", f.title(), name, why)
			fields.Field(i).SetZero()
		}
	}
	if why := invalid(f.Policy); why != "" { // fields that are at odds
		f.Note(f.Place, Lost, "%s is not served, as its policy is not valid: %s", f.title(), why)
		return false
	}
	return true
}

// connects has the active check be a TCP connect. It reports whether health is valid then.
func (f *Frontend) connects() bool {
	a := f.Policy.Health.Active
	if a == nil || a.HTTP == nil {
		return false
	}
	h := f.Policy.Health.DeepCopy()
	h.Active.Type, h.Active.HTTP = v1alpha1.CheckTCP, nil
	if invalid(v1alpha1.BlixtPolicySpec{Health: h}) != "" {
		return false
	}
	f.Policy.Health = h
	return true
}

// invalid returns why a policy with these fields is not valid, or "".
func invalid(spec v1alpha1.BlixtPolicySpec) string {
	if reflect.ValueOf(spec).IsZero() {
		return ""
	}
	spec.TargetRefs = []gwv1.LocalPolicyTargetReferenceWithSectionName{{LocalPolicyTargetReference: gwv1.LocalPolicyTargetReference{
		Group: gwv1.GroupName, Kind: "TCPRoute", Name: "any",
	}}}
	text, err := yaml.Marshal(newPolicy("", "any", spec))
	if err != nil {
		return err.Error()
	}
	_, errs := manifest.ParsePlace("", text)
	var all []string
	for _, e := range errs {
		all = append(all, e.Reason)
	}
	return strings.Join(all, "; ")
}

// bound moves durations into the bounds of their fields.
func (f *Frontend) bound() {
	p := &f.Policy
	if t := p.IdleTimeout; t != nil {
		f.boundOne("idleTimeout.tcp", &t.TCP, 10*time.Second, 168*time.Hour)
		f.boundOne("idleTimeout.udp", &t.UDP, time.Second, 24*time.Hour)
	}
	f.boundOne("maxAge", &p.MaxAge, time.Minute, 8760*time.Hour)
	if p.Affinity != nil {
		f.boundOne("affinity.timeout", &p.Affinity.Timeout, 10*time.Second, 24*time.Hour)
	}
	if p.Health == nil {
		return
	}
	if a := p.Health.Active; a != nil {
		f.boundOne("health.active.interval", &a.Interval, time.Second, time.Hour)
		f.boundOne("health.active.timeout", &a.Timeout, 100*time.Millisecond, time.Minute)
	}
	if v := p.Health.Passive; v != nil {
		f.boundOne("health.passive.baseEjection", &v.BaseEjection, time.Second, 24*time.Hour)
		f.boundOne("health.passive.maxEjection", &v.MaxEjection, time.Second, 24*time.Hour)
		f.boundOne("health.passive.window", &v.Window, time.Second, 10*time.Minute)
		f.boundOne("health.passive.answerWithin", &v.AnswerWithin, 100*time.Millisecond, time.Minute)
	}
}

func (f *Frontend) boundOne(field string, d **metav1.Duration, least, most time.Duration) {
	if *d == nil {
		return
	}
	is := (*d).Duration
	will := min(max(is, least), most).Truncate(time.Millisecond)
	if will != is {
		f.Note(f.Place, Changed, "%s: %s %s is out of the bounds of a BlixtPolicy, from %s to %s: it becomes %s", f.title(), field, short(is), short(least), short(most), short(will))
	}
	*d = &metav1.Duration{Duration: will}
}

// short returns a duration without parts that are zero, such as 168h.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
