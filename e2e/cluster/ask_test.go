// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/observe/dial"
)

// Who asks nodes gets their answers through the API server, a kubelet and the
// operator's leader, also after that has changed. The Role of the chart is enough for
// that, and nothing less.
func TestAskNodes(t *testing.T) {
	install(t)
	admin, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	all := []string{c.Nodes[0].Name, c.Nodes[1].Name}
	slices.Sort(all)
	eventuallyAsk(t, admin, nil, all)
	eventuallyAsk(t, admin, all[1:], all[1:])
	if _, err := askNodes(t, admin, "no-such-node"); err == nil || !strings.Contains(err.Error(), "no such node") {
		t.Errorf("a node that does not exist: %v", err)
	}

	user := rest.CopyConfig(admin)
	user.Impersonate.UserName = "observer"
	if got, err := askNodes(t, user); err == nil || !strings.Contains(err.Error(), "--role=blixt-observer") {
		t.Errorf("without a right: %v, %v", got, err)
	}
	kubectl(t, "-n", v1alpha1.Namespace, "create", "rolebinding", "observer", "--role=blixt-observer", "--user=observer")
	t.Cleanup(func() {
		if _, err := c.Kubectl(context.Background(), "-n", v1alpha1.Namespace, "delete", "rolebinding", "observer"); err != nil {
			t.Error(err)
		}
	})
	eventuallyAsk(t, user, nil, all)

	// What the operator's own guard refuses, whoever could create the token.
	kubectl(t, "delete", "clusterrolebinding", "blixt-observer")
	if got, err := askNodes(t, user); err == nil || !strings.Contains(err.Error(), "takes the right to get nodedataplanes/status") {
		t.Errorf("an account without a right: %v, %v", got, err)
	}
	kubectl(t, "create", "clusterrolebinding", "blixt-observer", "--clusterrole=blixt-observer", "--serviceaccount="+v1alpha1.Namespace+":blixt-observer")

	leader, err := c.Kubectl(t.Context(), "-n", v1alpha1.Namespace, "get", "lease", v1alpha1.Operator, "-o", "jsonpath={.spec.holderIdentity}")
	if err != nil {
		t.Fatal(err)
	}
	pod, _, _ := strings.Cut(leader, "_")
	kubectl(t, "-n", v1alpha1.Namespace, "delete", "pod", pod)
	eventuallyAsk(t, admin, nil, all)
}

// askNodes returns the nodes that answer.
func askNodes(t *testing.T, config *rest.Config, nodes ...string) (answered []string, err error) {
	conn, err := dial.Dial(t.Context(), dial.Target{Config: config, Namespace: v1alpha1.Namespace, Nodes: nodes})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	err = conn.Ask(t.Context(), observe.Query{Status: &observe.StatusQuery{}}, func(node string, piece json.RawMessage) error {
		if len(piece) < 100 {
			return errors.New("that is no status: " + string(piece))
		}
		answered = append(answered, node)
		return nil
	})
	slices.Sort(answered)
	return answered, err
}

// eventuallyAsk waits until nodes answer.
func eventuallyAsk(t *testing.T, config *rest.Config, nodes, want []string) {
	t.Helper()
	kube.Wait(t, patience, "nodes that answer", want, func() ([]string, error) { return askNodes(t, config, nodes...) })
}
