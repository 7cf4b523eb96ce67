// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/kube"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// policyOptions are the flags of policy.
type policyOptions struct {
	standalone.PreviewOptions
	files   fileFlags
	here    hostFlags
	cluster clusterFlags
	name    string
	output  format
}

func policyCommand() *cobra.Command {
	var o policyOptions
	c := &cobra.Command{
		Use:   "policy [OBJECT]",
		Short: "Show what BlixtPolicies make of a Gateway, listener or route, and which one says so",
		Long: `Shows the values in force for each listener and its route: who may connect, limits, time-outs,
health. Next to each value stand the BlixtPolicy and the target that it comes from, and the
policies that say something else, which does not hold. Without a policy, it is the default.

OBJECT is KIND/NAMESPACE/NAME, or KIND/NAME in namespace default: of a Gateway, ListenerSet,
TCPRoute, UDPRoute or BlixtPolicy. /LISTENER behind a Gateway or ListenerSet names one of its
listeners. Without OBJECT it is everything that a policy says something about.

It shows what files say with -f, without asking anybody. Without that, it is what the load
balancer of this host has read, or a cluster: what a kubeconfig file or a flag names. What is
wrong with the policies comes last, in a cluster as their status says.

Exits with 1 if there is no such object among those that Blixt serves.`,
		Example: `  blixt policy tcproute/shop/web
  blixt policy gateway/infra/edge/sip -o yaml
  blixt policy blixtpolicy/shop/web -f /etc/blixt`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.files.check(); err != nil {
				return err
			}
			x, err := newObject(strings.Join(args, ""))
			if err != nil {
				return &usageError{c, err}
			}
			r, err := o.read(c)
			if err != nil {
				return err
			}
			if err := r.keep(x); err != nil {
				return err
			}
			return o.output.print(c.OutOrStdout(), r, r.table)
		},
	}
	f := c.Flags()
	o.files.add(f, &o.Files)
	f.StringVar(&o.name, "name", loader.DefaultName, "name of the load balancer of this host")
	o.here.add(f)
	o.cluster.add(f)
	o.output.add(f)
	return c
}

// object is what the argument names.
type object struct {
	kind, name string
	text       string
}

// objectKinds are the kinds by what people write.
var objectKinds = map[string]string{
	"gateway": "Gateway", "gateways": "Gateway", "gtw": "Gateway", "listenerset": "ListenerSet", "listenersets": "ListenerSet", "lset": "ListenerSet",
	"tcproute": "TCPRoute", "tcproutes": "TCPRoute", "udproute": "UDPRoute", "udproutes": "UDPRoute",
	"blixtpolicy": "BlixtPolicy", "blixtpolicies": "BlixtPolicy", "bpol": "BlixtPolicy",
}

func newObject(text string) (x object, err error) {
	if text == "" {
		return x, nil
	}
	parts := strings.Split(text, "/")
	kind := objectKinds[strings.ToLower(parts[0])]
	most := 3
	if kind == "Gateway" || kind == "ListenerSet" {
		most = 4
	}
	if kind == "" || len(parts) < 2 || len(parts) > most || slices.Contains(parts, "") {
		return x, fmt.Errorf("%q is no object: write it like gateway/infra/edge, gateway/infra/edge/LISTENER, tcproute/shop/web or blixtpolicy/shop/web", text)
	}
	if len(parts) == 2 {
		parts = slices.Insert(parts, 1, metav1.NamespaceDefault)
	}
	return object{kind, strings.Join(parts[1:], "/"), text}, nil
}

func (x object) String() string { return x.text }

// is reports whether the listener is concerned: all of them if no object is named and any policy
// says something.
func (x object) is(l *gateway.Explained) bool {
	switch x.kind {
	case "":
		return len(l.Policies) > 0
	case "BlixtPolicy":
		return slices.Contains(l.Policies, x.name)
	}
	return slices.Contains(l.Targets, x.kind+"/"+x.name)
}

// explained is what blixt policy shows.
type explained struct {
	Listeners []gateway.Explained `json:"listeners"`
	// Problems are those of the policies.
	Problems []problem `json:"problems,omitempty"`
}

// read reads files, what the load balancer of this host has read, or a cluster.
func (o *policyOptions) read(c *cobra.Command) (*explained, error) {
	if len(o.Files.Paths)+len(o.Files.Given) > 0 {
		return o.readFiles()
	}
	if !o.here.isMeant(nil, c.Flags()) && !c.Flags().Changed("name") {
		return o.readCluster(c.Context())
	}
	says, err := standalone.ReadProcessStatus(o.here.RunDir, o.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notRunning(o.name, o.here.Names())
	}
	if err != nil {
		return nil, forRoot(err)
	}
	o.Like, o.Files.Paths, o.Files.Recursive, o.Files.Given = &says, says.Files, says.Recursive, says.Given
	return o.readFiles()
}

func (o *policyOptions) readFiles() (*explained, error) {
	o.Files.FullNames = true
	p, err := standalone.NewPreview(o.PreviewOptions)
	if err != nil {
		return nil, forRoot(err)
	}
	r := &explained{}
	for _, remark := range p.Remarks {
		if strings.HasPrefix(remark.Object, "BlixtPolicy ") || p.State == nil {
			severity := "warning"
			if remark.Level >= slog.LevelError {
				severity = "error"
			}
			r.Problems = append(r.Problems, problem{severity, remark.File, remark.Line, remark.Object, remark.Message})
		}
	}
	if p.State != nil {
		r.Listeners = p.Explain()
	}
	return r, nil
}

// readCluster reads what Translate needs of a cluster, but for addresses.
func (o *policyOptions) readCluster(ctx context.Context) (*explained, error) {
	ctx, cancel := context.WithTimeout(ctx, clusterLimit)
	defer cancel()
	as, _, err := o.cluster.connect()
	if err != nil {
		return nil, err
	}
	return explainCluster(ctx, as)
}

func explainCluster(ctx context.Context, c client.Reader) (*explained, error) {
	objs, err := readObjects(ctx, c)
	if err != nil {
		return nil, &exitError{unreachable, err}
	}
	r := &explained{Listeners: gateway.Explain(objs, gateway.Options{Cluster: &gateway.Cluster{}})}
	t := gateway.Translation{}
	for i := range objs.Policies {
		p := &objs.Policies[i]
		t.Policies = append(t.Policies, gateway.PolicyStatus{NamespacedName: client.ObjectKeyFromObject(p), Status: p.Status})
	}
	for _, p := range t.Problems() {
		r.Problems = append(r.Problems, problem{Severity: "error", Object: p.Object, Message: p.Message})
	}
	return r, nil
}

func readObjects(ctx context.Context, c client.Reader) (o gateway.Objects, err error) {
	r := &kube.Reader{Client: c, Unread: map[string]string{}}
	o = gateway.Objects{
		GatewayClasses:  kube.Read[gwv1.GatewayClassList](ctx, r).Items,
		Gateways:        kube.Read[gwv1.GatewayList](ctx, r).Items,
		ListenerSets:    kube.Read[gwv1.ListenerSetList](ctx, r).Items,
		TCPRoutes:       kube.Read[gwv1.TCPRouteList](ctx, r).Items,
		UDPRoutes:       kube.Read[gwv1.UDPRouteList](ctx, r).Items,
		ReferenceGrants: kube.Read[gwv1.ReferenceGrantList](ctx, r).Items,
		Services:        kube.Read[corev1.ServiceList](ctx, r).Items,
		Configs:         kube.Read[v1alpha1.BlixtConfigList](ctx, r).Items,
		GatewayConfigs:  kube.Read[v1alpha1.BlixtGatewayConfigList](ctx, r).Items,
		Policies:        kube.Read[v1alpha1.BlixtPolicyList](ctx, r).Items,
		Namespaces:      kube.Read[corev1.NamespaceList](ctx, r).Items,
	}
	for _, kind := range []string{"BlixtPolicy", "Gateway", "GatewayClass", "TCPRoute", "UDPRoute"} {
		if why := r.Unread[kind]; why != "" && r.Err == nil {
			r.Err = fmt.Errorf("read %s: %s: ask for the ClusterRole blixt-viewer", kind, why)
		}
	}
	return o, r.Err
}

// keep drops what does not concern an object. It returns an error if nothing is left.
func (r *explained) keep(x object) error {
	r.Listeners = slices.DeleteFunc(r.Listeners, func(l gateway.Explained) bool { return !x.is(&l) })
	if x.name == "" {
		return nil
	}
	shown := map[string]bool{x.kind + " " + x.name: true}
	for _, l := range r.Listeners {
		for _, p := range l.Policies {
			shown["BlixtPolicy "+p] = true
		}
	}
	r.Problems = slices.DeleteFunc(r.Problems, func(p problem) bool { return !shown[p.Object] && p.Object != "" })
	switch {
	case len(r.Listeners) > 0:
		return nil
	case len(r.Problems) > 0:
		return fmt.Errorf("no listener of Blixt is concerned by %s: %s", x, r.Problems[0])
	}
	return fmt.Errorf("no listener of Blixt is concerned by %s: is the name right, and is a route attached, or a policy's target there?", x)
}

func (r *explained) table(out io.Writer) {
	w := printer{out}
	if len(r.Listeners) == 0 {
		w.printf("No BlixtPolicy concerns a listener.\n")
	}
	for i, l := range r.Listeners {
		if i > 0 {
			w.printf("\n")
		}
		w.printf("Gateway %s, listener %s (%s %d), %s\n", l.Gateway, l.Listener, l.Protocol.String(), l.Port, cmp.Or(l.Route, "no route"))
		if l.Refused != "" {
			w.printf("  NO NEW CONNECTIONS: %s\n", l.Refused)
		}
		t, flush := newTable(out)
		t.printf("  FIELD\tVALUE\tPOLICY\tTARGET\tINSTEAD OF\n")
		for _, v := range l.Values {
			t.printf("  %s\t%s\t%s\t%s\t%s\n", v.Field, v.Value, cmp.Or(v.Policy, "default"), cmp.Or(v.Target, "-"), cmp.Or(phrase.Sample(v.Instead), "-"))
		}
		flush()
	}
	for i, p := range r.Problems {
		if i == 0 {
			w.printf("\n")
		}
		w.printf("%s\n", p)
	}
}
