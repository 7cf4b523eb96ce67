// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/admin/doctor"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
)

// symptom is a finding of blixt doctor, and a part of what it has seen.
type symptom struct {
	check   string
	verdict doctor.Level
	object  string
	seen    string
}

// defect is made and mended by commands of kubectl, whose words have no spaces, and
// found by blixt doctor.
type defect struct {
	name string
	make []string
	// fleeting defects are made again until they are found: others mend them, or
	// do not let them happen at once.
	fleeting bool
	// long defects take long to make or to mend.
	long     bool
	symptoms []symptom
	mend     []string
	// mended waits until the defect is mended.
	mended func(t *testing.T)
}

const (
	chartCRDs = "../../charts/blixt/files/crds"
	gateways  = ".gateway.networking.k8s.io"
	notServed = `--type=json -p [{"op":"replace","path":"/spec/versions/0/served","value":false}]`
)

func defects(t *testing.T) []defect {
	t.Helper()
	stock, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/bpfman/bpfman-operator").Output()
	if err != nil {
		t.Fatal(err)
	}
	released := filepath.Join(strings.TrimSpace(string(stock)), "config/crd/bases/bpfman.io_clusterbpfapplicationstates.yaml")
	return []defect{
		{
			name:     "old kernel and full disk",
			make:     []string{`patch node node-2 --subresource=status -p {"status":{"nodeInfo":{"kernelVersion":"6.1.0"},"conditions":[{"type":"DiskPressure","status":"True"}]}}`},
			fleeting: true, // the kubelet restores it
			symptoms: []symptom{
				{"kernel", doctor.Failed, "Node node-2", "6.1.0: it has no TCX"},
				{"disk", doctor.Warning, "Node node-2", "bpfman hangs"},
			},
		},
		{
			name: "missing Gateway API",
			make: []string{
				"patch crd udproutes" + gateways + " " + notServed,
				"delete crd referencegrants" + gateways,
			},
			symptoms: []symptom{
				{"gateway-api", doctor.Failed, "CustomResourceDefinition udproutes" + gateways, "does not serve version v1: UDP is not served"},
				{"gateway-api", doctor.Warning, "CustomResourceDefinition referencegrants" + gateways, "is not there"},
			},
			mended: installGatewayAPI,
		},
		{
			name:     "kinds of Blixt are missing",
			make:     []string{"patch crd blixtgatewayconfigs.blixt.x-k8s.io " + notServed},
			symptoms: []symptom{{"blixt-kinds", doctor.Failed, "CustomResourceDefinition blixtgatewayconfigs.blixt.x-k8s.io", "does not serve version v1alpha1"}},
			mend:     []string{"apply --server-side --force-conflicts -f " + chartCRDs},
		},
		{
			name: "kinds of bpfman as released",
			make: []string{
				"apply --server-side --force-conflicts -f " + released,
				"patch crd configs.bpfman.io " + notServed,
			},
			symptoms: []symptom{
				{"bpfman-link-ids", doctor.Failed, "CustomResourceDefinition clusterbpfapplicationstates.bpfman.io", "format int32"},
				{"bpfman-kinds", doctor.Failed, "CustomResourceDefinition configs.bpfman.io", "does not serve version v1alpha1"},
			},
			mend: []string{"apply --server-side --force-conflicts -f ../../charts/blixt/files/bpfman"},
		},
		{
			name: "bpfman's operator away, and its CSI driver",
			long: true,
			make: []string{
				"-n bpfman scale deployment bpfman-operator --replicas=0",
				"-n bpfman wait pods --for=delete --selector=control-plane=controller-manager",
				"delete csidriver csi.bpfman.io",
			},
			symptoms: []symptom{
				{"bpfman-operator", doctor.Failed, "Deployment bpfman/bpfman-operator", "readyReplicas is 0"},
				{"bpfman-csi", doctor.Failed, "CSIDriver csi.bpfman.io", "it is not there"},
			},
			mend: []string{
				"-n bpfman scale deployment bpfman-operator --replicas=1",
				"apply --server-side --force-conflicts -f " + filepath.Join(bpfmanFiles(t), "2-csidriver-csi.bpfman.io.yaml"),
			},
		},
		{
			name:     "bpfman kept off a node",
			make:     []string{`-n bpfman patch daemonset bpfman-daemon -p {"spec":{"template":{"spec":{"nodeSelector":{"kubernetes.io/hostname":"node-1"}}}}}`},
			symptoms: []symptom{{"bpfman-nodes", doctor.Failed, "Node node-2", "no pod of DaemonSet bpfman/bpfman-daemon"}},
			mend:     []string{`-n bpfman patch daemonset bpfman-daemon -p {"spec":{"template":{"spec":{"nodeSelector":null}}}}`},
		},
		{
			name:     "tunnel left out",
			make:     []string{`annotate node node-2 flannel.alpha.coreos.com/backend-type=vxlan flannel.alpha.coreos.com/backend-data={"VNI":1}`},
			symptoms: []symptom{{"tunnels", doctor.Failed, "BlixtConfig", "leaves out flannel.1"}},
			mend:     []string{"annotate node node-2 flannel.alpha.coreos.com/backend-type- flannel.alpha.coreos.com/backend-data-"},
		},
		{
			name: "operator away",
			make: []string{
				"-n " + system + " scale deployment blixt-operator --replicas=0",
				"-n " + system + " wait pods --for=delete --selector=app.kubernetes.io/component=operator",
				"label services --selector=gateway.networking.k8s.io/gateway-name=balanced service.kubernetes.io/service-proxy-name-",
			},
			symptoms: []symptom{
				{"operator", doctor.Failed, "Deployment " + system + "/blixt-operator", "spec.replicas is 0"},
				{"leader", doctor.Failed, "Lease " + system + "/blixt-operator", "leads"},
				{"kube-proxy", doctor.Warning, "Service default/blixt-balanced", "kube-proxy serves it too"},
			},
			mend: []string{"-n " + system + " scale deployment blixt-operator --replicas=2"},
		},
		{
			name: "agents without their seccomp profile",
			make: []string{`patch blixtconfig blixt --type=merge -p {"spec":{"dataplane":{"agent":{"seccompProfile":"profiles/forgotten.json"}}}}`},
			symptoms: []symptom{
				{"agents", doctor.Failed, "", "profiles/forgotten.json"},
			},
			mend: []string{`patch blixtconfig blixt --type=merge -p {"spec":{"dataplane":{"agent":null}}}`},
		},
		{
			name:     "Pod Security refuses agents",
			fleeting: true, // the admission of pods learns of labels a little later
			long:     true,
			make: []string{
				"label --overwrite namespace " + system + " pod-security.kubernetes.io/enforce=restricted",
				"label --overwrite namespace bpfman pod-security.kubernetes.io/enforce=baseline",
				"-n " + system + " delete pods --selector=app.kubernetes.io/component=agent --field-selector=spec.nodeName=node-2",
			},
			symptoms: []symptom{
				{"pod-security", doctor.Failed, "Namespace " + system, "pods of agents are refused"},
				{"pod-security", doctor.Failed, "Namespace bpfman", "bpfman's pods are privileged"},
				{"agents", doctor.Failed, "", "only 1 pods are made"},
			},
			mend: []string{
				"label --overwrite namespace " + system + " pod-security.kubernetes.io/enforce=baseline",
				"label --overwrite namespace bpfman pod-security.kubernetes.io/enforce=privileged",
			},
		},
		{
			name: "pool, ports and interfaces that are not ours",
			make: []string{
				`patch blixtconfig blixt --type=json -p [{"op":"add","path":"/spec/addresses/pool/-","value":"10.211.1.0/24"},{"op":"add","path":"/spec/addresses/pool/-","value":"10.212.0.0/28"}]`,
				`patch blixtconfig blixt --type=merge -p {"spec":{"dataplane":{"snatPorts":{"first":20000,"last":33000},"interfaces":{"names":["eth0","cni0","eth9"]}}}}`,
			},
			symptoms: []symptom{
				{"pool", doctor.Failed, "BlixtConfig blixt", "10.211.1.0/24 overlaps 10.211.1."},
				{"pool", doctor.Failed, "BlixtConfig blixt", "10.212.0.0/28 overlaps 10.212.0."},
				{"snat-ports", doctor.Failed, "BlixtConfig", "20000-33000 overlap 30000-32767, the cluster's node ports"},
				{"snat-ports", doctor.Failed, "BlixtConfig", "20000-33000 overlap 32768-60999, the ports of nodes' own connections"},
				{"nodes", doctor.Failed, "NodeDataplane node-1", "eth9"},
				{"nodes", doctor.Failed, "NodeDataplane node-2", "eth9"},
			},
			mend: []string{
				`patch blixtconfig blixt --type=json -p [{"op":"remove","path":"/spec/addresses/pool/3"},{"op":"remove","path":"/spec/addresses/pool/2"}]`,
				`patch blixtconfig blixt --type=merge -p {"spec":{"dataplane":{"snatPorts":null,"interfaces":{"names":["eth0","cni0"]}}}}`,
			},
		},
		{
			name:     "data plane that leaves a node out",
			make:     []string{`patch blixtconfig blixt --type=merge -p {"spec":{"dataplane":{"nodes":{"matchLabels":{"kubernetes.io/hostname":"node-1"}}}}}`},
			symptoms: []symptom{{"bpfman-selector", doctor.Warning, "BlixtConfig", "leaves out node-2"}},
			mend:     []string{`patch blixtconfig blixt --type=merge -p {"spec":{"dataplane":{"nodes":null}}}`},
		},
	}
}

// TestAdministration does what an administrator does besides installing Blixt, where
// Pod Security is enforced: look for defects, and for tampering.
func TestAdministration(t *testing.T) {
	installGatewayAPI(t)
	if err := c.ApplyYAML(t.Context(), []byte(`{apiVersion: v1, kind: Namespace, metadata: {name: `+system+`, labels: {pod-security.kubernetes.io/enforce: baseline}}}`)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // the operator does not delete what is patched below
		if err := c.Client.Delete(context.Background(), &v1alpha1.BlixtConfig{ObjectMeta: metav1.ObjectMeta{Name: "blixt"}}); err != nil {
			t.Error(err)
		}
	})
	image := installBlixt(t, pool, "--set="+bridge+",config.addresses.alsoSources={Node,LoadBalancer}")
	application := rollout.Name(image)
	applyUntilEnd(t, "balanced.yaml", "", "")
	vips := routeVIPs(t, "balanced", c.Nodes[0])
	awaitLinks(t, "cni0", "eth0")

	t.Run("privileges", testPrivileges)
	t.Run("baseline", func(t *testing.T) { testConfinement(t, application, vips, "1") })
	t.Run("restricted", func(t *testing.T) { testRestricted(t, application, vips) })
	t.Run("doctor", testDoctor)
	t.Run("audit", func(t *testing.T) { testAudit(t, image) })
}

// testDoctor checks that blixt doctor finds each defect that a real cluster can have,
// and finds it no more when it is mended as the remedy says.
func testDoctor(t *testing.T) {
	blixt := builtBlixt(t)
	awaitHealthy(t, blixt)
	// These are made first and checked last: doctor reports them only after a minute.
	applyFile(t, "defects.yaml", "", "")
	for _, d := range defects(t) {
		if d.long && !*long {
			continue
		}
		t.Run(d.name, func(t *testing.T) { d.find(t, blixt) })
	}
	t.Run("objects of others", func(t *testing.T) {
		defer deleteFile(t, "defects.yaml", "", "")
		for _, s := range []symptom{
			{"network-policy", doctor.Warning, "NetworkPolicy " + system + "/strict", "not of Blixt's chart"},
			{"classes", doctor.Failed, "GatewayClass unconfigured", "does not exist"},
			{"programs", doctor.Warning, "", "LoadError on node node-1"},
			{"addresses", doctor.Failed, "Service default/blixt-unassigned", "has given it no address"},
		} {
			s.find(t, blixt, nil)
		}
	})
	awaitHealthy(t, blixt)
}

func (d *defect) find(t *testing.T, blixt string) {
	disturb := func() { runKubectl(t, d.make...) }
	defer func() {
		runKubectl(t, d.mend...)
		if d.mended != nil {
			d.mended(t)
		}
		for _, s := range d.symptoms {
			kube.Wait(t, patience, "what doctor finds of "+s.check, "", func() (string, error) { return s.found(t, blixt), nil })
		}
	}()
	disturb()
	again := disturb
	if !d.fleeting {
		again = nil
	}
	for _, s := range d.symptoms {
		s.find(t, blixt, again)
	}
}

// find waits until doctor reports the symptom with a remedy.
func (s symptom) find(t *testing.T, blixt string, again func()) {
	t.Helper()
	kube.Wait(t, 2*patience, "what doctor finds of "+s.check, string(s.verdict)+", with a remedy", func() (string, error) {
		if again != nil {
			again()
		}
		return s.found(t, blixt), nil
	})
}

// found returns the verdict of doctor's finding, "" if there is none.
func (s symptom) found(t *testing.T, blixt string) string {
	t.Helper()
	for _, f := range runDoctor(t, blixt) {
		if f.Check == s.check && strings.Contains(f.Object, s.object) && strings.Contains(f.Seen, s.seen) {
			if f.Remedy == "" {
				return string(f.Verdict)
			}
			return string(f.Verdict) + ", with a remedy"
		}
	}
	return ""
}

// runDoctor returns the findings of blixt doctor that are not OK.
func runDoctor(t *testing.T, blixt string) (wrong []doctor.Finding) {
	t.Helper()
	out, err := exec.Command(blixt, "doctor", "--kubeconfig", c.Kubeconfig(), "--output=json").Output()
	var all struct{ Findings []doctor.Finding }
	if e := json.Unmarshal(out, &all); e != nil {
		t.Fatalf("blixt doctor: %v, %v: %s", err, e, out)
	}
	failed := false
	for _, f := range all.Findings {
		failed = failed || f.Verdict == doctor.Failed
		// installBlixt signs nothing, of which doctor warns: TestReadme signs.
		if f.Verdict != doctor.OK && f.Check != "signatures" {
			wrong = append(wrong, f)
		}
	}
	if failed != (err != nil) {
		t.Errorf("blixt doctor: %v, and it has found %+v", err, wrong)
	}
	return wrong
}

func awaitHealthy(t *testing.T, blixt string) {
	t.Helper()
	kube.Wait(t, 2*patience, "what doctor finds", []doctor.Finding(nil), func() ([]doctor.Finding, error) { return runDoctor(t, blixt), nil })
}

func runKubectl(t *testing.T, all ...string) {
	t.Helper()
	for _, command := range all {
		kubectl(t, strings.Fields(command)...)
	}
}
