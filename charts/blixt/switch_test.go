// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/util/jsonpath"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// standard lists the objects of an installation with default values, without CRDs.
var standard = []string{
	"ClusterRole/blixt-observer", "ClusterRole/blixt-operator", "ClusterRole/blixt-viewer", "ClusterRoleBinding/blixt-observer", "ClusterRoleBinding/blixt-operator", "Deployment/blixt-operator",
	"Job/blixt-uninstall", "NetworkPolicy/blixt-agent", "NetworkPolicy/blixt-operator",
	"PodDisruptionBudget/blixt-operator", "Role/blixt-observer", "Role/blixt-operator", "Role/blixt-operator-kube-proxy", "RoleBinding/blixt-operator", "RoleBinding/blixt-operator-kube-proxy",
	"Service/blixt-operator", "Service/blixt-operator-metrics", "ServiceAccount/blixt-agent", "ServiceAccount/blixt-observer", "ServiceAccount/blixt-operator",
	"ValidatingAdmissionPolicy/blixt-maps", "ValidatingAdmissionPolicy/blixt-names",
	"ValidatingAdmissionPolicyBinding/blixt-maps", "ValidatingAdmissionPolicyBinding/blixt-names",
}

func TestStandardObjects(t *testing.T) {
	objects := mustTemplate(t)
	if diff := cmp.Diff(standard, names(objects)); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
	var got []string
	for _, o := range objects {
		if o.GetKind() == "CustomResourceDefinition" {
			got = append(got, o.GetName())
			if keep := o.GetAnnotations()["helm.sh/resource-policy"]; keep != "keep" {
				t.Errorf("CRD %s has resource policy %q, want keep: uninstalling would delete what people wrote", o.GetName(), keep)
			}
		}
	}
	if diff := cmp.Diff(v1alpha1.CRDs, got); diff != "" {
		t.Errorf("CRDs (-want +got):\n%s", diff)
	}
}

// Each value does what its comment says: it adds or removes objects, or changes fields.
func TestSwitches(t *testing.T) {
	const operator = "Deployment/blixt-operator"
	const container = "{.spec.template.spec.containers[0]"
	for _, c := range []struct {
		name         string
		flags        []string
		more, fewer  []string
		object, path string
		want         string
	}{
		{name: "image by digest", object: operator, path: container + ".image}",
			want: "registry.example.com/blixt/operator@sha256:" + strings.Repeat("1", 64)},
		{name: "image by tag", flags: []string{"--set=image.digest=,image.tag=v1"}, object: operator, path: container + ".image}",
			want: "registry.example.com/blixt/operator:v1"},
		{name: "digest before tag", flags: []string{"--set=image.tag=v1"}, object: operator, path: container + ".image}",
			want: "registry.example.com/blixt/operator@sha256:" + strings.Repeat("1", 64)},
		{name: "global.imageRegistry", flags: []string{"--set=global.imageRegistry=mirror.example.org:5000/all"}, object: operator, path: container + ".image} " + container + ".args[2]} " + container + ".args[3]}",
			want: "mirror.example.org:5000/all/blixt/operator@sha256:" + strings.Repeat("1", 64) +
				" --agent-image=mirror.example.org:5000/all/blixt/operator@sha256:" + strings.Repeat("1", 64) +
				" --bytecode=mirror.example.org:5000/all/blixt/bytecode@sha256:" + strings.Repeat("2", 64)},
		{name: "global.imageRegistry and an image of Docker Hub", flags: []string{"--set=global.imageRegistry=mirror,image.repository=blixt/operator,image.digest=,image.tag=v1"},
			object: operator, path: container + ".image}", want: "mirror/blixt/operator:v1"},
		{name: "global.imageRegistry and an image of this machine", flags: []string{"--set=global.imageRegistry=mirror,image.repository=localhost/blixt/operator,image.digest=,image.tag=v1"},
			object: operator, path: container + ".image}", want: "mirror/blixt/operator:v1"},
		{name: "global.imageRegistry of the uninstallation", flags: []string{"--set=global.imageRegistry=mirror"}, object: "Job/blixt-uninstall", path: container + ".image}",
			want: "mirror/blixt/operator@sha256:" + strings.Repeat("1", 64)},
		{name: "global without a registry", flags: []string{"--set=global=null"}, object: operator, path: container + ".image}",
			want: "registry.example.com/blixt/operator@sha256:" + strings.Repeat("1", 64)},
		{name: "image.pullPolicy", flags: []string{"--set=image.pullPolicy=Always"}, object: operator, path: container + ".imagePullPolicy}", want: "Always"},
		{name: "imagePullSecrets", flags: []string{"--set=imagePullSecrets={a,b}"}, object: operator,
			path: "{.spec.template.spec.imagePullSecrets[*].name}", want: "a b"},
		{name: "config", flags: []string{"--set=config.addresses.source=Node"}, more: []string{"ConfigMap/blixt-config"},
			object: operator, path: container + ".args[5]}", want: "--config=/etc/blixt/config/blixtconfig.yaml"},
		{name: "config is mounted", flags: []string{"--set=config.addresses.source=Node"}, more: []string{"ConfigMap/blixt-config"},
			object: operator, path: "{.spec.template.spec.volumes[0].configMap.name} " + container + ".volumeMounts[0].mountPath}", want: "blixt-config /etc/blixt/config"},
		{name: "gatewayClass.create", flags: []string{"--set=gatewayClass.create=false"}, object: operator, path: container + ".args[5]}", want: "--fleet-address=:8443"},
		{name: "gatewayClass.name", flags: []string{"--set=gatewayClass.name=other"}, object: operator, path: container + ".args[5]}", want: "--gateway-class=other"},
		{name: "gatewayClass.name of the operator's rights", flags: []string{"--set=gatewayClass.name=other"}, object: "ClusterRole/blixt-operator", path: "{.rules[3].resourceNames} {.rules[3].verbs}", want: `["other"] ["create","delete"]`},
		{name: "replicas", flags: []string{"--set=replicas=3"}, object: operator, path: "{.spec.replicas}", want: "3"},
		{name: "resources", flags: []string{"--set=resources.limits.memory=1Gi"}, object: operator, path: container + ".resources.limits.memory}", want: "1Gi"},
		{name: "priorityClassName", flags: []string{"--set=priorityClassName=mine"}, object: operator, path: "{.spec.template.spec.priorityClassName}", want: "mine"},
		{name: "nodeSelector", flags: []string{"--set=nodeSelector.role=infra"}, object: operator, path: "{.spec.template.spec.nodeSelector.role}", want: "infra"},
		{name: "tolerations", flags: []string{"--set=tolerations[0].operator=Exists"}, object: operator, path: "{.spec.template.spec.tolerations[0].operator}", want: "Exists"},
		{name: "env", flags: []string{"--set=env[0].name=HTTPS_PROXY,env[0].value=proxy:1"}, object: operator, path: container + ".env[2].value}", want: "proxy:1"},
		{name: "podAnnotations", flags: []string{"--set=podAnnotations.a=b"}, object: operator, path: "{.spec.template.metadata.annotations.a}", want: "b"},
		{name: "podLabels", flags: []string{"--set=podLabels.a=b"}, object: operator, path: "{.spec.template.metadata.labels.a}", want: "b"},
		{name: "certManager", flags: []string{"--set=certManager.enabled=true,certManager.issuerRef.name=ca"}, more: []string{"Certificate/blixt-operator"},
			object: operator, path: "{.spec.template.spec.volumes[0].secret.secretName}", want: "blixt-tls"},
		{name: "certManager.issuerRef", flags: []string{"--set=certManager.enabled=true,certManager.issuerRef.name=ca,certManager.issuerRef.kind=ClusterIssuer"},
			more: []string{"Certificate/blixt-operator"}, object: "Certificate/blixt-operator", path: "{.spec.issuerRef.kind} {.spec.dnsNames[0]}",
			want: "ClusterIssuer blixt-operator.blixt-system.svc"},
		{name: "registryCA", flags: []string{"--set=registryCA=my-ca"}, object: operator, path: "{.spec.template.spec.volumes[0].configMap.name}", want: "my-ca"},
		{name: "pullSecretRoles", flags: []string{"--set=pullSecretRoles[0].namespace=other,pullSecretRoles[0].name=creds"},
			more:   []string{"Role/blixt-operator-pull-creds", "RoleBinding/blixt-operator-pull-creds"},
			object: "RoleBinding/blixt-operator-pull-creds", path: "{.metadata.namespace} {.subjects[0].namespace}", want: "other blixt-system"},
		{name: "admissionPolicy", flags: []string{"--set=admissionPolicy.enabled=false"}, fewer: []string{
			"ValidatingAdmissionPolicy/blixt-maps", "ValidatingAdmissionPolicy/blixt-names",
			"ValidatingAdmissionPolicyBinding/blixt-maps", "ValidatingAdmissionPolicyBinding/blixt-names"}},
		{name: "admissionPolicy leaves Blixt's namespace out", object: "ValidatingAdmissionPolicyBinding/blixt-maps",
			path: "{.spec.matchResources.namespaceSelector.matchExpressions[0].values[0]} {.spec.validationActions}", want: `blixt-system ["Deny"]`},
		{name: "gatewayAPI.install", flags: []string{"--set=gatewayAPI.install=true"},
			more: []string{"ValidatingAdmissionPolicy/" + safeUpgrades, "ValidatingAdmissionPolicyBinding/" + safeUpgrades}},
		{name: "gatewayAPI.safeUpgrades", flags: []string{"--set=gatewayAPI.install=true,gatewayAPI.safeUpgrades=false"}},
		{name: "podDisruptionBudget", flags: []string{"--set=podDisruptionBudget.enabled=false"}, fewer: []string{"PodDisruptionBudget/blixt-operator"}},
		{name: "networkPolicy", flags: []string{"--set=networkPolicy.enabled=false"}, fewer: []string{"NetworkPolicy/blixt-agent", "NetworkPolicy/blixt-operator"}},
		{name: "networkPolicy.egressPorts", flags: []string{"--set=networkPolicy.egressPorts={5000}"}, object: "NetworkPolicy/blixt-operator",
			path: "{.spec.egress[1].ports[*].port}", want: "5000"},
		{name: "networkPolicy.metricsFrom", flags: []string{"--set=networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.name=monitoring"},
			object: "NetworkPolicy/blixt-operator", path: "{.spec.ingress[1].from[0].namespaceSelector.matchLabels.name}", want: "monitoring"},
		{name: "tokenReview", flags: []string{"--set=monitoring.tokenReview.enabled=true"}, more: []string{"ClusterRole/blixt-metrics-reader"},
			object: "ClusterRole/blixt-metrics-reader", path: "{.rules[0].nonResourceURLs[0]} {.rules[0].verbs[0]}", want: "/metrics get"},
		{name: "tokenReview of the operator", flags: []string{"--set=monitoring.tokenReview.enabled=true"}, more: []string{"ClusterRole/blixt-metrics-reader"},
			object: operator, path: "{.spec.template.spec.containers[0].args[12]}", want: "--metrics-token-review"},
		{name: "otlpEndpoint", flags: []string{"--set=monitoring.otlpEndpoint=https://collector.monitoring.svc:4317"}, object: "NetworkPolicy/blixt-operator",
			path: "{.spec.egress[2].ports[*].port}", want: "4317"},
		{name: "page", flags: []string{"--set=page.enabled=true"}, more: []string{"Service/blixt-operator-page"},
			object: "Service/blixt-operator-page", path: "{.spec.ports[0].port} {.spec.selector}", want: "8460 "},
		{name: "page of the operator", flags: []string{"--set=page.enabled=true"}, more: []string{"Service/blixt-operator-page"},
			object: operator, path: container + ".ports[2].containerPort} " + container + ".args[11]}", want: "8460 --http-address=:8460"},
		{name: "page.tlsSecret", flags: []string{"--set=page.enabled=true,page.tlsSecret=page-tls"}, more: []string{"Service/blixt-operator-page"},
			object: operator, path: "{.spec.template.spec.volumes[0].secret.secretName} " + container + ".volumeMounts[0].mountPath}", want: "page-tls /etc/blixt/page"},
		{name: "page.tlsSecret without a page", flags: []string{"--set=page.tlsSecret=page-tls"}, object: operator, path: "{.spec.template.spec.volumes}", want: ""},
		{name: "page.hosts", flags: []string{"--set=page.enabled=true,page.hosts={blixt.example.com},certManager.enabled=true,certManager.issuerRef.name=ca"},
			more: []string{"Service/blixt-operator-page", "Certificate/blixt-operator"}, object: "Certificate/blixt-operator", path: "{.spec.dnsNames[*]}",
			want: "blixt-operator.blixt-system.svc blixt-operator-page.blixt-system.svc blixt.example.com"},
		{name: "networkPolicy.pageFrom", flags: []string{"--set=page.enabled=true,networkPolicy.pageFrom[0].namespaceSelector.matchLabels.name=ingress"},
			more: []string{"Service/blixt-operator-page"}, object: "NetworkPolicy/blixt-operator", path: "{.spec.ingress[1].from[0].namespaceSelector.matchLabels.name} {.spec.ingress[1].ports[0].port}", want: "ingress page"},
		{name: "serviceMonitor", flags: []string{"--set=monitoring.serviceMonitor.enabled=true,monitoring.interval=5s"}, more: []string{"ServiceMonitor/blixt-operator"},
			object: "ServiceMonitor/blixt-operator", path: "{.spec.endpoints[0].interval}", want: "5s"},
		{name: "podMonitor", flags: []string{"--set=monitoring.podMonitor.enabled=true,monitoring.labels.team=net"}, more: []string{"PodMonitor/blixt-agent"},
			object: "PodMonitor/blixt-agent", path: "{.metadata.labels.team}", want: "net"},
		{name: "prometheusRule", flags: []string{"--set=monitoring.prometheusRule.enabled=true"}, more: []string{"PrometheusRule/blixt"},
			object: "PrometheusRule/blixt", path: "{.spec.groups[*].name}", want: "blixt-operator blixt-agent blixt-traffic"},
		{name: "dashboards", flags: []string{"--set=monitoring.dashboards.enabled=true,monitoring.dashboards.annotations.grafana_folder=Net"},
			more:   []string{"ConfigMap/blixt-dashboard-gateway", "ConfigMap/blixt-dashboard-nodes", "ConfigMap/blixt-dashboard-overview"},
			object: "ConfigMap/blixt-dashboard-nodes", path: "{.metadata.labels.grafana_dashboard} {.metadata.annotations.grafana_folder}", want: "1 Net"},
		{name: "uninstall", flags: []string{"--set=uninstall.enabled=false"}, fewer: []string{"Job/blixt-uninstall"}},
		{name: "uninstall.timeoutSeconds", flags: []string{"--set=uninstall.timeoutSeconds=60"}, object: "Job/blixt-uninstall", path: "{.spec.activeDeadlineSeconds} {.spec.template.spec.containers[0].args[2]}", want: "80 --timeout=60s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			objects := mustTemplate(t, c.flags...)
			want := slices.DeleteFunc(slices.Concat(standard, c.more), func(n string) bool { return slices.Contains(c.fewer, n) })
			slices.Sort(want)
			if diff := cmp.Diff(want, names(objects)); diff != "" {
				t.Errorf("objects (-want +got):\n%s", diff)
			}
			if c.object != "" {
				if got := field(t, objects, c.object, c.path); got != c.want {
					t.Errorf("%s of %s is %s, want %s", c.path, c.object, got, c.want)
				}
			}
		})
	}
}

// field returns the field of an object at a path, written as for kubectl.
func field(t *testing.T, objects []*unstructured.Unstructured, name, path string) string {
	t.Helper()
	parser := jsonpath.New(name).AllowMissingKeys(true) // one that is not there is empty
	parser.EnableJSONOutput(false)
	if err := parser.Parse(path); err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if o.GetKind()+"/"+o.GetName() == name {
			var b strings.Builder
			if err := parser.Execute(&b, o.Object); err != nil {
				t.Fatalf("%s of %s: %v", path, name, err)
			}
			return b.String()
		}
	}
	t.Fatalf("no %s among %v", name, names(objects))
	return ""
}

func TestCRDSwitches(t *testing.T) {
	for _, o := range mustTemplate(t, "--set=crds.install=false") {
		if o.GetKind() == "CustomResourceDefinition" {
			t.Errorf("CRD %s is there without crds.install", o.GetName())
		}
	}
	n := 0
	for _, o := range mustTemplate(t, "--set=crds.keep=false") {
		if o.GetKind() == "CustomResourceDefinition" {
			n++
			if keep, ok := o.GetAnnotations()["helm.sh/resource-policy"]; ok {
				t.Errorf("CRD %s has resource policy %s without crds.keep", o.GetName(), keep)
			}
		}
	}
	if n != len(v1alpha1.CRDs) {
		t.Errorf("%d CRDs, want %d", n, len(v1alpha1.CRDs))
	}
}

// arguments returns the operator's command line.
func arguments(t *testing.T, flags ...string) []string {
	t.Helper()
	return strings.Fields(field(t, mustTemplate(t, flags...), "Deployment/blixt-operator", "{range .spec.template.spec.containers[0].args[*]}{@}{'\\n'}{end}"))
}

func TestArguments(t *testing.T) {
	image := "registry.example.com/blixt/operator@sha256:" + strings.Repeat("1", 64)
	want := []string{
		"operator", "--namespace=$(POD_NAMESPACE)", "--agent-image=" + image,
		"--bytecode=registry.example.com/blixt/bytecode@sha256:" + strings.Repeat("2", 64),
		"--service-account=blixt-agent", "--gateway-class=blixt", "--fleet-address=:8443", "--fleet-service=blixt-operator", "--ca-config-map=blixt-ca", "--tls-secret=blixt-tls",
		"--observe-address=127.0.0.1:8444", "--metrics-address=:8080", "--health-address=:8081", "--leader-elect=true",
		"--node-ports=30000-32767", "--ephemeral-ports=32768-60999", "--log-level=info", "--log-format=text",
	}
	if diff := cmp.Diff(want, arguments(t)); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
	got := arguments(t, "--set=imagePullSecrets={a,b},certManager.enabled=true,certManager.issuerRef.name=ca,config.addresses.source=Node,nodePorts=1-2,ephemeralPorts=3-4,logging.level=debug,logging.format=json,monitoring.otlpEndpoint=http://collector:4317,page.enabled=true,page.hosts={a.example.com,b},page.tlsSecret=t")
	changed := slices.DeleteFunc(got, func(a string) bool { return slices.Contains(want, a) })
	if diff := cmp.Diff([]string{"--image-pull-secret=a", "--image-pull-secret=b", "--config=/etc/blixt/config/blixtconfig.yaml", "--tls-dir=/etc/blixt/tls",
		"--http-address=:8460", "--http-host=a.example.com", "--http-host=b", "--http-tls-cert=/etc/blixt/page/tls.crt", "--http-tls-key=/etc/blixt/page/tls.key",
		"--otlp-endpoint=http://collector:4317", "--node-ports=1-2", "--ephemeral-ports=3-4", "--log-level=debug", "--log-format=json"}, changed); diff != "" {
		t.Errorf("changed arguments (-want +got):\n%s", diff)
	}
}

func TestWrongValuesAreRefused(t *testing.T) {
	for _, c := range []struct{ flag, text string }{
		{"--set=replica=3", "replica"},
		{"--set=image.repositry=x", "repositry"},
		{"--set=image.repository=", "image.repository: this chart is of the source, which names no images: install the chart of a release, or push images of your own with make images REGISTRY=…"},
		{"--set=image.digest=", "image.digest: name the image by digest"},
		{"--set=image.digest=sha256:12", "image/digest"},
		{"--set=bytecode.image=", "bytecode.image: this chart is of the source, which names no images: install the chart of a release, or push it with make images REGISTRY=…"},
		{"--set=bytecode.image=registry.example.com/bytecode:v1", "bytecode/image"},
		{"--set=global.imageRegistry=https://mirror.example.com", "global/imageRegistry"},
		{"--set=global.imageRegistry=mirror.example.com/", "global/imageRegistry"},
		{"--set=config.adresses.source=Node", "adresses"},
		{"--set=certManager.enabled=true", "issuerRef"},
		{"--set=pullSecretRoles[0].name=a", "namespace"},
		{"--set=logging.level=loud", "logging/level"},
		{"--set=nodePorts=30000", "nodePorts"},
		{"--set=networkPolicy.egressPorts={0}", "egressPorts"},
		{"--set=monitoring.interval=often", "interval"},
		{"--set=monitoring.otlpEndpoint=collector:4317", "otlpEndpoint"},
		{"--set=page.hosts={https://blixt.example.com}", "hosts"},
		{"--set=page.enable=true", "enable"},
		// Without these defaults less would be protected, or nothing removed.
		{"--set=networkPolicy.enabled=null", "missing property 'enabled'"},
		{"--set=networkPolicy.egressPorts=null", "missing property 'egressPorts'"},
		{"--set=networkPolicy=null", "missing property 'networkPolicy'"},
		{"--set=admissionPolicy.enabled=null", "missing property 'enabled'"},
		{"--set=uninstall.enabled=null", "missing property 'enabled'"},
		{"--set=crds.keep=null", "missing property 'keep'"},
		{"--set=bpfman.configuration=null", "missing property 'configuration'"},
		{"--set=bpfman.nodeSelector.edge=true", "bpfman/nodeSelector/edge"},
	} {
		t.Run(c.flag, func(t *testing.T) {
			t.Parallel()
			_, err := template(t, c.flag)
			if err == nil || !strings.Contains(fmt.Sprint(err), c.text) {
				t.Errorf("got error %v, want one with %q", err, c.text)
			}
		})
	}
}
