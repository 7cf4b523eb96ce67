// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/control/controller"
)

// The leader makes the class of the installation, and changes what it has made. One of
// somebody else stays as it is.
func TestClassOfTheInstallation(t *testing.T) {
	o := prepare(t)
	o.must(grant())
	class := named[gwv1.GatewayClass]("", "blixt")
	o.must(client.IgnoreNotFound(o.kube.Delete(t.Context(), named[gwv1.GatewayClass]("", "blixt"))))
	replica := func(change func(*controller.ManagerOptions)) (stop func()) {
		return o.replica("127.0.0.1:"+o.freePort(), func(m *controller.ManagerOptions) {
			m.GatewayClass, m.LeaderElection = "blixt", false
			if change != nil {
				change(m)
			}
		})
	}
	parameters := func(want string) {
		t.Helper()
		o.eventually("class", func() error {
			if err := o.kube.Get(t.Context(), client.ObjectKeyFromObject(class), class); err != nil {
				return err
			}
			got := ""
			if p := class.Spec.ParametersRef; p != nil {
				got = fmt.Sprint(p.Group, "/", p.Kind, "/", p.Name)
			}
			if got != want || class.Spec.ControllerName != "gateway.networking.k8s.io/blixt" || class.Labels["app.kubernetes.io/managed-by"] != "blixt-operator" {
				return fmt.Errorf("it has labels %v, controller %s and parameters %q, want %q", class.Labels, class.Spec.ControllerName, got, want)
			}
			return nil
		})
	}
	stop := replica(nil)
	parameters("blixt.x-k8s.io/BlixtConfig/blixt")
	o.condition(class, "Accepted", "True Accepted", "")
	stop()
	stop = replica(func(m *controller.ManagerOptions) { m.ConfigFile = "" })
	parameters("")
	stop()

	o.must(o.kube.Delete(t.Context(), class))
	o.apply("{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: blixt}, spec: {controllerName: gateway.networking.k8s.io/blixt, description: theirs}}")
	stop = replica(nil)
	o.condition(class, "Accepted", "True Accepted", "")
	time.Sleep(time.Second)
	stop()
	o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(class), class))
	if class.Spec.ParametersRef != nil || class.Labels["app.kubernetes.io/managed-by"] != "" {
		t.Errorf("the operator has taken over somebody else's class: %+v", class)
	}
}
