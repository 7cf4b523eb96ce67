// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// read returns the objects of a text with one YAML document for each.
func read(t *testing.T, text string) Objects {
	t.Helper()
	var o Objects
	for doc := range strings.SplitSeq(text, "---\n") {
		var kindOf metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(doc), &kindOf); err != nil {
			t.Fatal(err)
		}
		k, known := kinds[kindOf.Kind]
		if !known {
			t.Fatalf("kind %q of %s", kindOf.Kind, doc)
		}
		object := k.new()
		if err := yaml.UnmarshalStrict([]byte(doc), object); err != nil {
			t.Fatal(err)
		}
		if kindOf.Kind != "GatewayClass" && object.GetNamespace() == "" {
			object.SetNamespace("default")
		}
		k.add(&o, object)
	}
	return o
}

const class = `kind: GatewayClass
metadata: {name: blixt}
spec: {controllerName: gateway.networking.k8s.io/blixt}
`

// app returns a Gateway, a route, a Service and an EndpointSlice of a name.
func app(name, address string, port int) string {
	return fmt.Sprintf(`---
kind: Gateway
metadata: {name: %[1]s}
spec: {gatewayClassName: blixt, addresses: [{value: %[2]s}], listeners: [{name: tcp, protocol: TCP, port: %[3]d}]}
---
kind: TCPRoute
metadata: {name: %[1]s}
spec: {parentRefs: [{name: %[1]s, sectionName: tcp}], rules: [{backendRefs: [{name: %[1]s, port: 80}]}]}
---
kind: Service
metadata: {name: %[1]s}
spec: {ports: [{protocol: TCP, port: 80}]}
---
kind: EndpointSlice
metadata: {name: %[1]s, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
ports: [{protocol: TCP, port: 8080}]
endpoints: [{addresses: [10.0.0.1]}]
`, name, address, port)
}

var web, other = app("web", "192.0.2.1", 80), app("other", "192.0.2.2", 80)

// served returns each frontend with route and endpoints.
func served(r *Review) []string {
	var all []string
	for _, f := range gateway.Resolve(&r.Translation.Unresolved, r.Endpoints, gateway.ResolveOptions{}).State.Frontends {
		words := []string{f.Key().String(), f.Gateway, f.Route}
		for _, b := range f.Backends {
			words = append(words, b.Addr.String())
		}
		all = append(all, strings.Join(words, " "))
	}
	return all
}

func at(name, _ string) string { return "here: " + name }

// steps reviews one text after the other.
func steps(t *testing.T, texts ...string) Review {
	t.Helper()
	m := &Memory{}
	var r Review
	for _, text := range texts {
		r = m.Review(read(t, text), gateway.Options{}, at)
		m = r.Memory
	}
	return r
}

// What is meant takes effect, though routes or Services are left over.
func TestWhatIsMeantTakesEffect(t *testing.T) {
	of := strings.Split(class+web, "---\n") // class, Gateway, route, Service, slice
	without := func(n int) string { return strings.Join(slices.Delete(slices.Clone(of), n, n+1), "---\n") }
	const backend = " TCPRoute/default/web 10.0.0.1:8080"
	for name, c := range map[string]struct{ text, want string }{
		"Gateway deleted":         {without(1), ""},
		"route deleted":           {without(2), "192.0.2.1:80/tcp default/web "},
		"EndpointSlice deleted":   {without(4), "192.0.2.1:80/tcp default/web TCPRoute/default/web"},
		"no endpoint":             {strings.Replace(class+web, "endpoints: [{addresses: [10.0.0.1]}]", "endpoints: []", 1), "192.0.2.1:80/tcp default/web TCPRoute/default/web"},
		"Service and route gone":  {of[0] + "---\n" + of[1] + "---\n" + of[4], "192.0.2.1:80/tcp default/web "},
		"port changed":            {strings.Replace(class+web, "port: 80}]}\n---\nkind: TCPRoute", "port: 81}]}\n---\nkind: TCPRoute", 1), "192.0.2.1:81/tcp default/web" + backend},
		"all renamed":             {class + app("new", "192.0.2.1", 80), "192.0.2.1:80/tcp default/new TCPRoute/default/new 10.0.0.1:8080"},
		"listener removed":        {strings.Replace(class+web, "{name: tcp, protocol: TCP, port: 80}", "{name: udp, protocol: UDP, port: 53}", 1), "192.0.2.1:53/udp default/web "},
		"weight 0":                {strings.Replace(class+web, "{name: web, port: 80}", "{name: web, port: 80, weight: 0}", 1), "192.0.2.1:80/tcp default/web" + backend},
		"everything but a class":  {class, ""},
		"everything and a Gatway": {of[0] + "---\n" + of[3], ""},
	} {
		before := class + web
		if name == "listener removed" {
			before = strings.Replace(before, "listeners: [", "listeners: [{name: udp, protocol: UDP, port: 53}, ", 1)
		}
		r := steps(t, before, c.text)
		if got := strings.Join(served(&r), "; "); got != c.want {
			t.Errorf("%s: served %q, want %q (%v)", name, got, c.want, r.Refusals)
		}
		if len(r.Refusals) > 0 {
			t.Errorf("%s: refused: %v", name, r.Refusals)
		}
	}
}

// What is new does not hurt what serves, and mistakes of several objects at once are
// cured by what was good of each.
func TestMistakesAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ old, new, says string }{
		"renamed Gateway":            {"kind: Gateway\nmetadata: {name: web}", "kind: Gateway\nmetadata: {name: wbe}", "Gateway default/web in parentRefs does not exist"},
		"renamed with a typo":        {"kind: Gateway\nmetadata: {name: web}\nspec: {gatewayClassName: blixt", "kind: Gateway\nmetadata: {name: wbe}\nspec: {gatewayClassName: blxt", "GatewayClass blxt does not exist"},
		"Service and label renamed":  {"kind: Service\nmetadata: {name: web}", "kind: Service\nmetadata: {name: wbe}", "Service default/web does not exist"},
		"route of another kind":      {"kind: TCPRoute", "kind: UDPRoute", "does not take a UDPRoute"},
		"renamed route with a typo":  {"kind: TCPRoute\nmetadata: {name: web}\nspec: {parentRefs: [{name: web, sectionName: tcp}], rules: [{backendRefs: [{name: web", "kind: TCPRoute\nmetadata: {name: two}\nspec: {parentRefs: [{name: web, sectionName: tcp}], rules: [{backendRefs: [{name: wbe", "Service default/wbe does not exist"},
		"Service without slices":     {"backendRefs: [{name: web, port: 80}]}]}\n", "backendRefs: [{name: new, port: 80}]}]}\n---\nkind: Service\nmetadata: {name: new}\nspec: {ports: [{protocol: TCP, port: 80}]}\n", "Service default/new has no EndpointSlice"},
		"two at once":                {"kind: TCPRoute\nmetadata: {name: web}\nspec: {parentRefs: [{name: web, sectionName: tcp}]", "kind: TCPRoute\nmetadata: {name: web}\nspec: {parentRefs: [{name: wbe, sectionName: tpc}]", "Gateway default/wbe"},
		"endpoint becomes frontend":  {"---\nkind: Gateway\nmetadata: {name: web}", "---\nkind: Gateway\nmetadata: {name: trap}\nspec: {gatewayClassName: blixt, addresses: [{value: 10.0.0.1}], listeners: [{name: t, protocol: TCP, port: 8080}]}\n---\nkind: Gateway\nmetadata: {name: web}", "10.0.0.1:8080/tcp is itself a frontend"},
		"another Gateway's port":     {"---\nkind: Gateway\nmetadata: {name: web}", "---\nkind: Gateway\nmetadata: {name: aaa}\nspec: {gatewayClassName: blixt, addresses: [{value: 192.0.2.1}], listeners: [{name: t, protocol: TCP, port: 80}]}\n---\nkind: Gateway\nmetadata: {name: web}", ""},
		"another route":              {"---\nkind: TCPRoute\nmetadata: {name: web}", "---\nkind: TCPRoute\nmetadata: {name: aaa}\nspec: {parentRefs: [{name: web}], rules: [{backendRefs: [{name: nobody, port: 80}]}]}\n---\nkind: TCPRoute\nmetadata: {name: web}", ""},
		"another route that is good": {"---\nkind: TCPRoute\nmetadata: {name: web}", "---\nkind: TCPRoute\nmetadata: {name: aaa}\nspec: {parentRefs: [{name: web}], rules: [{backendRefs: [{name: other, port: 80}]}]}\n---\nkind: TCPRoute\nmetadata: {name: web}", ""},
	} {
		text := strings.Replace(class+web, c.old, c.new, 1)
		if text == class+web {
			t.Fatalf("%s: nothing replaced", name)
		}
		if name == "Service and label renamed" {
			text = strings.Replace(text, "service-name: web", "service-name: wbe", 1)
		}
		r := steps(t, class+web+other, text+other)
		want := []string{"192.0.2.1:80/tcp default/web TCPRoute/default/web 10.0.0.1:8080", "192.0.2.2:80/tcp default/other TCPRoute/default/other 10.0.0.1:8080"}
		if got := served(&r); !slices.Equal(got, want) {
			t.Errorf("%s: served %q (%v)", name, got, r.Refusals)
		}
		if c.says != "" && !slices.ContainsFunc(r.Refusals, func(r Refusal) bool { return strings.Contains(r.Text(), c.says) }) {
			t.Errorf("%s: refused %v, want %s", name, r.Refusals, c.says)
		}
		// Nothing changes while it lasts, nor by a restart.
		var again Memory
		if stored, err := json.Marshal(r.Memory); err != nil || json.Unmarshal(stored, &again) != nil {
			t.Fatal(err)
		}
		for _, m := range []*Memory{r.Memory, &again} {
			next := m.Review(read(t, text+other), gateway.Options{}, at)
			if !slices.Equal(served(&next), served(&r)) || fmt.Sprint(next.Messages(nil)) != fmt.Sprint(r.Messages(nil)) {
				t.Errorf("%s: then served %q\n%v\nwas\n%v", name, served(&next), fmt.Sprint(next.Messages(nil)), fmt.Sprint(r.Messages(nil)))
			}
		}
		mended := r.Memory.Review(read(t, class+web+other), gateway.Options{}, at)
		if !slices.Equal(served(&mended), want) || len(mended.Refusals)+len(mended.Mistakes) > 0 {
			t.Errorf("%s: mended, served %q %v %v", name, served(&mended), mended.Refusals, mended.Mistakes)
		}
	}
}

// An old mistake holds up no change, be it of the object that has it.
func TestKnownMistakeHoldsUpNothing(t *testing.T) {
	start := strings.Replace(class+web, "listeners: [", "listeners: [{name: tls, protocol: TLS, port: 443}, ", 1)
	r := steps(t, start, strings.Replace(start, "port: 80}]}\n---\nkind: TCPRoute", "port: 81}]}\n---\nkind: TCPRoute", 1))
	if got := served(&r); len(got) != 1 || !strings.HasPrefix(got[0], "192.0.2.1:81/tcp") || len(r.Refusals) > 0 {
		t.Errorf("served %q, refused %v", got, r.Refusals)
	}
	// But a new mistake does not end what serves.
	r = steps(t, start, strings.Replace(start, "gatewayClassName: blixt", "gatewayClassName: blitx", 1))
	if got := served(&r); len(got) != 1 || len(r.Refusals) != 1 {
		t.Errorf("served %q, refused %v", got, r.Refusals)
	}
}

// A memory that was written in part, or by nobody, is refused as a whole.
func TestBrokenMemoryIsRefused(t *testing.T) {
	r := steps(t, class+web)
	text, err := json.Marshal(r.Memory)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(text) {
		if m := (&Memory{}); json.Unmarshal(text[:n], m) == nil || m.good != nil {
			t.Fatalf("%d of %d bytes are a memory", n, len(text))
		}
	}
	for _, broken := range []string{"null", "{}", `{"version": 2}`, `{"version": 1, "good": [{"kind": "Pod", "object": {}}]}`,
		`{"version": 1, "good": [{"kind": "Service", "key": "Service a/b", "object": {"metadata": {"name": "c"}}}]}`,
		`{"version": 1, "good": [{"kind": "Gateway", "key": "x", "object": null}]}`} {
		m := &Memory{}
		if json.Unmarshal([]byte(broken), m) == nil && broken != "null" {
			t.Errorf("%s is a memory", broken)
		}
		m.Review(read(t, class+web), gateway.Options{}, at)
	}
}

// TestRandomMistakes makes random changes of which each is a mistake in the app web or a
// change of the app other: web is served as ever, other as the change wants.
func TestRandomMistakes(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 16))
		m := &Memory{}
		m = m.Review(read(t, class+web+app("other", "192.0.2.2", 80)), gateway.Options{}, at).Memory
		for step := range 8 {
			port := 1000 + random.IntN(1000)
			text := mistaken(random, class+web) + app("other", "192.0.2.2", port)
			r := m.Review(read(t, text), gateway.Options{}, at)
			want := []string{"192.0.2.1:80/tcp default/web TCPRoute/default/web 10.0.0.1:8080",
				fmt.Sprintf("192.0.2.2:%d/tcp default/other TCPRoute/default/other 10.0.0.1:8080", port)}
			if got := served(&r); !slices.Equal(got, want) {
				t.Fatalf("seed %d, step %d: served %q, want %q, of\n%s\nrefused: %v\nleft: %v", seed, step, got, want, text, r.Refusals, r.Mistakes)
			}
			m = r.Memory
		}
	}
}

// mistaken returns the text with one to three typos in names, or without the class.
func mistaken(random *rand.Rand, text string) string {
	typos := [][2]string{
		{"gatewayClassName: blixt", "gatewayClassName: blixxt"}, {"protocol: TCP, port: 80}]}\n---\nkind: TCPRoute", "protocol: tcp, port: 80}]}\n---\nkind: TCPRoute"},
		{"sectionName: tcp", "sectionName: tpc"}, {"{name: tcp,", "{name: tpc,"}, {"parentRefs: [{name: web", "parentRefs: [{name: wbe"},
		{"backendRefs: [{name: web", "backendRefs: [{name: wbe"}, {"kind: Service\nmetadata: {name: web}", "kind: Service\nmetadata: {name: wbe}"},
		{"service-name: web", "service-name: wbe"}, {"[10.0.0.1]", "[127.0.0.1]"}, {"k8s.io/blixt", "k8s.io/blitx"}, {"value: 192.0.2.1", "value: 224.0.0.1"},
		{"ports: [{protocol: TCP, port: 8080}]", "ports: [{name: x, protocol: TCP, port: 8080}]"},
		{"kind: GatewayClass\nmetadata: {name: blixt}", "kind: GatewayClass\nmetadata: {name: blitx}"},
	}
	for range 1 + random.IntN(3) {
		typo := typos[random.IntN(len(typos))]
		text = strings.Replace(text, typo[0], typo[1], 1)
	}
	return text
}

// The cost of a review without mistakes is that of a translation, however much there is.
func TestReviewOfMuch(t *testing.T) {
	o := read(t, class+web)
	var of Objects
	of.GatewayClasses = o.GatewayClasses
	for n := range 300 {
		name := fmt.Sprint("app-", n)
		gw, route, service, slice := o.Gateways[0].DeepCopy(), o.TCPRoutes[0].DeepCopy(), o.Services[0].DeepCopy(), o.EndpointSlices[0].DeepCopy()
		gw.Name, route.Name, service.Name, slice.Name = name, name, name, name
		gw.Spec.Addresses[0].Value = netip.AddrFrom4([4]byte{192, 0, byte(3 + n/250), byte(1 + n%250)}).String()
		route.Spec.ParentRefs[0].Name = gwv1.ObjectName(name)
		route.Spec.Rules[0].BackendRefs[0].Name = gwv1.ObjectName(name)
		slice.Labels = map[string]string{discoveryv1.LabelServiceName: name}
		of.Gateways, of.TCPRoutes = append(of.Gateways, *gw), append(of.TCPRoutes, *route)
		of.Services, of.EndpointSlices = append(of.Services, *service), append(of.EndpointSlices, *slice)
	}
	r := (&Memory{}).Review(of, gateway.Options{}, at)
	if len(served(&r)) != 300 || len(r.Mistakes) > 0 {
		t.Fatalf("%d served, %v", len(served(&r)), r.Mistakes[:1])
	}
	// Each Service is mistaken in the same edit.
	of.Services = []corev1.Service{}
	r = r.Memory.Review(of, gateway.Options{}, at)
	if len(served(&r)) != 300 || len(r.Refusals) != 300 {
		t.Errorf("%d served, %d refused", len(served(&r)), len(r.Refusals))
	}
}

// TestSilenceIsBroken has what is valid and does nothing, or not what people expect: each
// is said once, with file, line and object.
func TestSilenceIsBroken(t *testing.T) {
	for name, c := range map[string]struct{ old, new, says string }{
		"foreign class":       {"networking.k8s.io/blixt", "example.com/other", "Gateway default/web: GatewayClass blixt is not Blixt's: its controllerName is gateway.example.com/other."},
		"shadowed":            {"---\nkind: Service", "---\nkind: TCPRoute\nmetadata: {name: zzz}\nspec: {parentRefs: [{name: web}], rules: [{backendRefs: [{name: web, port: 80}]}]}\n---\nkind: Service", "TCPRoute default/zzz: Shadowed: Listener tcp serves TCPRoute default/web instead"},
		"addresses":           {"[10.0.0.1]", "[10.0.0.1, 10.0.0.2, 10.0.0.3]", "EndpointSlice default/web: Not used: 10.0.0.2 and 10.0.0.3."},
		"weights":             {"{name: web, port: 80}]}]}", "{name: web, port: 80, weight: 0}]}]}", "TCPRoute default/web: Every backendRef has weight 0"},
		"affinity":            {"{ports: [{protocol: TCP, port: 80}]}", "{sessionAffinity: ClientIP, ports: [{protocol: TCP, port: 80}]}", "Service default/web: Ignored: sessionAffinity ClientIP"},
		"traffic policy":      {"{ports: [{protocol: TCP, port: 80}]}", "{externalTrafficPolicy: Local, type: LoadBalancer, ports: [{protocol: TCP, port: 80}]}", "Service default/web: Ignored: externalTrafficPolicy Local: set it in a BlixtGatewayConfig of the Gateway; type LoadBalancer: "},
		"source ranges":       {"{ports: [{protocol: TCP, port: 80}]}", "{loadBalancerSourceRanges: [10.0.0.0/8], ports: [{protocol: TCP, port: 80}]}", "loadBalancerSourceRanges: everybody may connect"},
		"targetPort":          {"{ports: [{protocol: TCP, port: 80}]}", "{ports: [{protocol: TCP, port: 80, targetPort: 8081}]}", "Service default/web: Port 80 has targetPort 8081, which none of its EndpointSlices has: connections go to 8080"},
		"port name":           {"{ports: [{protocol: TCP, port: 80}]}", "{ports: [{name: http, protocol: TCP, port: 80}]}", "Service default/web: Its TCP port \"http\" leads to no endpoint"},
		"orphan slice":        {"service-name: web", "service-name: wbe", "EndpointSlice default/web: Nothing uses its endpoints, as Service default/wbe does not exist"},
		"orphan Service":      {"backendRefs: [{name: web", "backendRefs: [{name: wbe", "Service default/web: It is not used"},
		"other namespace":     {"kind: Service\nmetadata: {name: web}", "kind: Service\nmetadata: {name: web, namespace: prod}", "TCPRoute default/web: BackendNotFound: Service default/web does not exist: create it, or correct the name. There is prod/web"},
		"lower case":          {"protocol: TCP, port: 80}]}\n---\nkind: TCPRoute", "protocol: tcp, port: 80}]}\n---\nkind: TCPRoute", "Gateway default/web listener tcp: UnsupportedProtocol: Protocol tcp is not supported: did you mean TCP?"},
		"group":               {"k8s.io/blixt}", "k8s.io/blixt, parametersRef: {group: gateway.blixt.dev, kind: BlixtConfig, name: blixt}}", "GatewayClass blixt: InvalidParameters: spec.parametersRef names BlixtConfig blixt, but the group is blixt.x-k8s.io, not gateway.blixt.dev"},
		"loopback":            {"value: 192.0.2.1", "value: 127.0.0.1", "Gateway default/web: AddressNotUsable: Address 127.0.0.1 cannot be used: it is a loopback address"},
		"multicast":           {"value: 192.0.2.1", "value: 224.0.0.1", "Address 224.0.0.1 cannot be used: it is a multicast address"},
		"unspecified":         {"value: 192.0.2.1", "value: 0.0.0.0", "Address 0.0.0.0 cannot be used: it is the unspecified address"},
		"its own endpoint":    {"[10.0.0.1]", "[192.0.2.1]", "Service default/web: Endpoint 192.0.2.1:8080/tcp is at an address of Gateway default/web"},
		"own port":            {"8080}]\nendpoints: [{addresses: [10.0.0.1]", "80}]\nendpoints: [{addresses: [192.0.2.1]", "Service default/web: Endpoint 192.0.2.1:80/tcp is itself a frontend"},
		"network address":     {"value: 192.0.2.1", "value: 192.0.2.0", "Gateway default/web: Address 192.0.2.0 is the network address of 192.0.2.0/24"},
		"broadcast address":   {"value: 192.0.2.1", "value: 192.0.2.255", "Gateway default/web: Address 192.0.2.255 is the broadcast address of 192.0.2.0/24"},
		"parent":              {"parentRefs: [{name: web", "parentRefs: [{name: wbe", "TCPRoute default/web: Gateway default/wbe in parentRefs does not exist"},
		"listener not for it": {"kind: TCPRoute", "kind: UDPRoute", "UDPRoute default/web: NotAllowedByListeners: "},
	} {
		text := strings.Replace(class+web, c.old, c.new, 1)
		if text == class+web {
			t.Fatalf("%s: nothing replaced", name)
		}
		r := steps(t, text)
		networks := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.0/31")}
		mistakes, states := r.Messages(r.Translation.NetworkRemarks(networks))
		lines := append(r.Few(mistakes), r.Few(states)...)
		said := 0
		for _, line := range lines {
			object, _, _ := strings.Cut(strings.TrimPrefix(line, "here: "), ": ")
			if strings.Contains(line, c.says) && strings.HasPrefix(line, "here: ") && strings.Contains(line, object) {
				said++
			}
			if strings.Contains(line, "\n") || !strings.HasPrefix(line, "here: ") {
				t.Errorf("%s: %q has no file and line, or several lines", name, line)
			}
		}
		if said != 1 {
			t.Errorf("%s: %q was said %d times in\n%s", name, c.says, said, strings.Join(lines, "\n"))
		}
	}
	if mistakes, states := func() ([]Message, []Message) { r := steps(t, class+web); return r.Messages(nil) }(); len(mistakes)+len(states) > 0 {
		t.Errorf("of what is right: %v %v", mistakes, states)
	}
}
