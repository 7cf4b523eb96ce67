// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// TestTranslate_OneNamespaceIsTooBig checks that 65 Gateways of 64 listeners, which
// are more than the nodes' tables hold, leave everybody else what they have, and
// by default leave room for others that come later.
func TestTranslate_OneNamespaceIsTooBig(t *testing.T) {
	for _, test := range []struct {
		name   string
		quotas []v1alpha1.Quota
		first  bool // the others are there before
		served bool // the others are served in the end
		most   int
	}{
		{"by default, others come later", nil, false, true, 1024},
		{"by default, others come first", nil, true, true, 1024},
		{"without quotas, others come first", []v1alpha1.Quota{}, true, true, 4095},
		{"without quotas, others come later", []v1alpha1.Quota{}, false, false, 4096},
	} {
		t.Run(test.name, func(t *testing.T) {
			var objs gateway.Objects
			addPoolClass(&objs, test.quotas)
			o := gateway.Options{Cluster: &gateway.Cluster{Nodes: []gateway.Node{{Name: "n1"}}}}
			others := bigGateway("shop", "web", time.Unix(1e9, 0), 1)
			if test.first {
				objs.Gateways = append(objs.Gateways, others)
				before := gateway.Translate(objs, o)
				o.Incumbents = &before.Incumbents
			}
			for i := range 65 {
				objs.Gateways = append(objs.Gateways, bigGateway("evil", fmt.Sprintf("gw-%d", i), time.Unix(1, 0), 64))
			}
			before := gateway.Translate(objs, o)
			o.Incumbents = &before.Incumbents
			if !test.first {
				objs.Gateways = append(objs.Gateways, others)
			}
			after := gateway.Translate(objs, o)
			count := map[bool]int{}
			for _, f := range after.Frontends {
				count[f.Gateway == "shop/web"]++
			}
			if count[false] != test.most || (count[true] == 1) != test.served {
				t.Errorf("%d frontends of one namespace and %d of the others are served, want %d and %v", count[false], count[true], test.most, test.served)
			}
			for _, g := range after.Gateways {
				programmed := meta.FindStatusCondition(g.Status.Conditions, "Programmed")
				if lacks := programmed.Reason == "NoResources"; g.NamespacedName == (types.NamespacedName{Namespace: "shop", Name: "web"}) && lacks == test.served {
					t.Errorf("Gateway shop/web: %+v", programmed)
				}
			}
		})
	}
}

// TestTranslate_SmallerTables checks that nobody loses what is served when a node
// reports smaller tables: each node leaves out what does not fit.
func TestTranslate_SmallerTables(t *testing.T) {
	var objs gateway.Objects
	addPoolClass(&objs, nil)
	objs.Gateways = append(objs.Gateways, bigGateway("shop", "web", time.Unix(1, 0), 4))
	o := gateway.Options{Cluster: &gateway.Cluster{}}
	before := gateway.Translate(objs, o)
	o.Incumbents, o.Cluster = &before.Incumbents, &gateway.Cluster{Capacity: lb.Capacity{Frontends: 1}}
	objs.Gateways = append(objs.Gateways, bigGateway("other", "web", time.Unix(1, 0), 1))
	if after := gateway.Translate(objs, o); len(after.Frontends) != 4 {
		t.Errorf("%d frontends are served, want the 4 from before", len(after.Frontends))
	}
}

// addPoolClass adds a class whose Gateways get addresses of a pool.
func addPoolClass(objs *gateway.Objects, quotas []v1alpha1.Quota) {
	class := gwv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: "blixt"}}
	class.Spec.ControllerName = gateway.ControllerName
	class.Spec.ParametersRef = &gwv1.ParametersReference{Group: "blixt.x-k8s.io", Kind: "BlixtConfig", Name: "config"}
	config := v1alpha1.BlixtConfig{ObjectMeta: metav1.ObjectMeta{Name: "config"}}
	config.Spec.Addresses = v1alpha1.Addresses{Source: v1alpha1.SourcePool, Pool: []string{"10.0.0.0/16"}}
	config.Spec.Quotas = quotas
	objs.GatewayClasses, objs.Configs = append(objs.GatewayClasses, class), append(objs.Configs, config)
}

func bigGateway(namespace, name string, created time.Time, listeners int) gwv1.Gateway {
	gw := gwv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, CreationTimestamp: metav1.NewTime(created)}}
	gw.Spec.GatewayClassName = "blixt"
	for i := range listeners {
		gw.Spec.Listeners = append(gw.Spec.Listeners, gwv1.Listener{
			Name: gwv1.SectionName(fmt.Sprintf("l%d", i)), Port: gwv1.PortNumber(1000 + i), Protocol: gwv1.TCPProtocolType})
	}
	return gw
}

// BenchmarkTranslate translates 2,000 Gateways with 4,000 listeners, and one after
// something has changed.
func BenchmarkTranslate(b *testing.B) {
	for _, n := range []int{500, 1000, 2000} {
		var objs gateway.Objects
		addPoolClass(&objs, []v1alpha1.Quota{})
		for i := range n {
			objs.Gateways = append(objs.Gateways, bigGateway(fmt.Sprintf("ns-%d", i%100), fmt.Sprintf("gw-%d", i), time.Unix(int64(i), 0), 2))
		}
		o := gateway.Options{Cluster: &gateway.Cluster{}}
		first := gateway.Translate(objs, o)
		again := o
		again.Incumbents = &first.Incumbents
		b.Run(fmt.Sprintf("%d/first", n), func(b *testing.B) {
			for b.Loop() {
				gateway.Translate(objs, o)
			}
		})
		b.Run(fmt.Sprintf("%d/again", n), func(b *testing.B) {
			for b.Loop() {
				gateway.Translate(objs, again)
			}
		})
	}
}
